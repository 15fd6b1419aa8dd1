/* token.c: the byte tokenizer and the prompt templates. */
#include "runtime/data.h"

#include <string.h>

int64_t tokenize_sample(const char *prompt, size_t nprompt, const char *answer, size_t nanswer, int64_t max,
                        int32_t *tokens, int32_t *labels) {
    int64_t n = 0;
    for (size_t i = 0; i < nprompt + nanswer + 2 && n < max; i++, n++) {
        bool own = i > nprompt; /* the answer and eos train */
        int32_t t =
            i == 0 ? TOKEN_BOS
            : i == nprompt + nanswer + 1
                ? TOKEN_EOS
                : (unsigned char)(i <= nprompt ? prompt[i - 1] : answer[i - 1 - nprompt]) + TOKEN_BYTE0;
        tokens[n] = t;
        labels[n] = own ? t : TOKEN_IGNORE;
    }
    for (int64_t i = n; i < max; i++) {
        tokens[i] = TOKEN_PAD;
        labels[i] = TOKEN_IGNORE;
    }
    return n;
}

bool template_prompt(Sbuf *out, const char *name, const char *instruction, const char *input) {
    bool with_input = input[0] != 0;
    if (strcmp(name, "alpaca") == 0) {
        sb_fmt(out,
               "Below is an instruction that describes a task%s. Write a response that appropriately "
               "completes the request.\n\n",
               with_input ? ", paired with an input that provides further context" : "");
        sb_fmt(out, "### Instruction:\n%s\n\n", instruction);
        if (with_input) sb_fmt(out, "### Input:\n%s\n\n", input);
        sb_str(out, "### Response:\n");
        return true;
    }
    if (strcmp(name, "plain") == 0) {
        sb_fmt(out, "%s\n", instruction);
        if (with_input) sb_fmt(out, "%s\n", input);
        return true;
    }
    return false;
}
