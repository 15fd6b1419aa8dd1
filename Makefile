# The two commands: `make demo` and `make test`. Both install what is missing (Debian packages) and say what.
BUILD ?= build
JOBS ?= $(shell nproc)

.PHONY: all demo test deps build asan clang-build fuzz bench format clean
all: build

deps:
	@sh tests/install.sh build

build: deps
	@cmake -G Ninja -S . -B $(BUILD) > $(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@ninja -C $(BUILD) -j $(JOBS) wmtpc

# Trains the critic, then the verifiable stage with its value head, on the sample data, and draws the losses.
demo: build
	@sh tests/demo.sh $(BUILD)/wmtpc runs/demo

test:
	@sh tests/install.sh test
	@sh tests/run.sh $(JOBS)

fuzz:
	@sh tests/install.sh test
	@sh tests/fuzz.sh build-fuzz $${SECONDS_EACH:-600}

bench: build
	@sh bench/run.sh

format:
	@clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build build-asan build-clang build-fuzz
