# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
TOOL := target/release/soprano-export
CARGO := cargo
BUNDLE := build/soprano-1.1
# A small trained voice, and what PyTorch and the exported model make of its hidden states.
MINI := build/soprano-mini
# The full-size decoder as PyTorch exported it, among the finished stages.
FOLDER := import json, sys; print(next(s["folder"] for s in json.load(sys.stdin)["stages"] if s["stage"] == "export"))
EXPORTED = $$($(TOOL) plan soprano-1.1 --json | $(PYTHON) -c '$(FOLDER)')/decoder.onnx
RUFF := --config python/pyproject.toml python benches fixtures tests

.PHONY: help demo test setup build bench lint size clean

help:
	@echo "make demo    export, validate and bundle two decoders, a full-size one and a small trained voice"
	@echo "make test    every test, Rust and Python"
	@echo "make bench   our figures beside the peers'"
	@echo "make lint    formatting and lints, Rust and Python"
	@echo "make setup   the Python environment alone"
	@echo "make size    lines of code per room"

# The Python environment of the Soprano family: in the user's cache, with .venv as a link to it.
setup:
	$(PYTHON) python/setup_env.py soprano

build:
	$(CARGO) build --release --locked

demo: setup build
	$(TOOL) build recipes/soprano-mini.yaml --output $(MINI) --overwrite
	rm -rf build/audio && $(TOOL) validate $(MINI) --audio build/audio
	$(TOOL) decoder --model synthetic:soprano-1.1 --output $(BUNDLE) --overwrite

test: setup
	$(PYTHON) tests/run.py

bench: demo
	$(CARGO) bench --locked
	.venv/bin/python benches/rewrite_peers.py --tool $(TOOL) --exported "$(EXPORTED)"
	.venv/bin/python benches/decoder_onnxruntime.py --exported "$(EXPORTED)" \
		--model $(BUNDLE)/onnx/soprano_decoder_fp32.onnx

lint: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	.venv/bin/ruff check $(RUFF)
	.venv/bin/ruff format --check $(RUFF)

size:
	@for room in src/*/ src/*.rs; do \
		printf '%6d  %s\n' "$$(find $$room -name '*.rs' ! -name proto.rs | xargs cat | wc -l)" "$$room"; \
	done

clean:
	rm -rf target build
