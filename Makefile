# Two commands do everything: `make demo`, which needs no Python, and `make test`.
PYTHON ?= python3
TOOL := target/release/soprano-export
CARGO := cargo
BUNDLE := build/soprano-1.1
# A small trained voice, and what PyTorch and the exported model make of its hidden states.
MINI := build/soprano-mini
# The full-size decoder as PyTorch exported it, among the finished stages.
FOLDER := import json, sys; print(next(s["folder"] for s in json.load(sys.stdin)["stages"] if s["stage"] == "export-decoder"))
EXPORTED = $$($(TOOL) plan soprano-1.1 --json | $(PYTHON) -c '$(FOLDER)')/model.onnx
# The checkpoint that it was exported from.
MADE := import json, sys; print(next(s["folder"] for s in json.load(sys.stdin)["stages"] if s["stage"] == "checkpoint"))
CHECKPOINT = $$($(TOOL) plan soprano-1.1 --json | $(PYTHON) -c '$(MADE)')
RUFF := --config python/pyproject.toml python benches fixtures tests

# ONNX Runtime reports its use over the network unless it is told not to.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help demo full test setup workflow build bench lint size clean

help:
	@echo "make demo    export, validate and bundle a small trained voice, and let it speak; without Python"
	@echo "make full    the same by PyTorch, with a full-size voice and OpenVINO"
	@echo "make test    every test, Rust and Python"
	@echo "make bench   our figures beside the peers'"
	@echo "make lint    formatting and lints, Rust and Python"
	@echo "make setup   the Python environment alone"
	@echo "make workflow  Snakemake's environment, for many recipes at once"
	@echo "make size    lines of code per room"

# The Python environment of the Soprano family: in the user's cache, with .venv as a link to it.
setup:
	$(PYTHON) python/setup_env.py soprano

# Snakemake, which runs the builds of many recipes; apart from .venv.
workflow:
	$(PYTHON) python/setup_env.py workflow

build:
	$(CARGO) build --release --locked

# The small voice, written from its weights and held against what PyTorch answered when it was recorded.
demo: build
	# Too small for 8 bits to be faster: its speed is not asked.
	@$(TOOL) build soprano-mini --exporter native --output $(MINI) --overwrite --no-speed-gate
	@$(TOOL) synth $(MINI) "Hello there, my friend." --output build/hello.wav --overwrite
	@echo "speech: build/hello.wav"
	@echo "report: $(MINI)/report.html"

full: setup build
	$(TOOL) build soprano-mini --exporter torch --output build/soprano-mini-torch --overwrite --no-speed-gate
	rm -rf build/audio && $(TOOL) validate build/soprano-mini-torch --audio build/audio
	rm -f build/speech.html && $(TOOL) validate build/soprano-mini-torch --speech --html build/speech.html
	$(TOOL) build soprano-1.1 --exporter torch --output $(BUNDLE) --overwrite

test: setup workflow
	$(PYTHON) tests/run.py

bench: demo full
	$(CARGO) bench --locked
	.venv/bin/python benches/native.py --tool $(TOOL) --checkpoint "$(CHECKPOINT)"
	.venv/bin/python benches/rewrite_peers.py --tool $(TOOL) --exported "$(EXPORTED)"
	.venv/bin/python benches/decoder_onnxruntime.py --exported "$(EXPORTED)" \
		--model $(BUNDLE)/onnx/soprano_decoder_fp32.onnx
	.venv/bin/python benches/decoder_int8.py --bundle $(BUNDLE) --checkpoint "$(CHECKPOINT)"
	.venv/bin/python benches/quantize_peers.py --tool $(TOOL) \
		--model $(BUNDLE)/onnx/soprano_backbone_kv_fp32.onnx
	.venv/bin/python benches/lm_onnxruntime.py --bundle $(BUNDLE) --checkpoint "$(CHECKPOINT)"
	.venv/bin/python benches/openvino_ir.py --bundle $(BUNDLE) --checkpoint "$(CHECKPOINT)"
	$(TOOL) bench $(BUNDLE) --pytorch "$(CHECKPOINT)" --quick
	.venv/bin/python benches/speech.py --tool $(TOOL) --bundle $(BUNDLE) --checkpoint "$(CHECKPOINT)"
	.venv/bin/python benches/publish.py --tool $(TOOL)

lint: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	$(CARGO) clippy --release --locked --no-default-features --features tract --lib --example speak -- -D warnings
	.venv/bin/ruff check $(RUFF)
	.venv/bin/ruff format --check $(RUFF)

size:
	@for room in src/*/ src/*.rs; do \
		printf '%6d  %s\n' "$$(find $$room -name '*.rs' ! -name proto.rs | xargs cat | wc -l)" "$$room"; \
	done

clean:
	rm -rf target build
