# train · test · bench · bench-growth, each in .venv with the exact lock installed; `make lock` makes the lock anew.
PYTHON ?= python3

train: .venv/lock
	.venv/bin/python train_encrypted.py $(ARGS)

test: .venv/lock
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pytest $(ARGS)

bench-growth: .venv/lock
	.venv/bin/python benchmarks/growth.py

bench: .venv/lock
	.venv/bin/python benchmarks/training.py

.venv/lock: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install pip==24.0 # later ones refuse the metadata of syft 0.2.9
	.venv/bin/pip install --no-deps -r requirements.txt
	cp requirements.txt $@

lock:
	{ echo "# Install: pip install pip==24.0 && pip install --no-deps -r requirements.txt"; \
	  echo "# The exact lock of requirements.in, made anew by \`make lock\` (needs uv)."; \
	  uv pip compile requirements.in --override requirements.in --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --quiet --no-emit-package cuda-toolkit; \
	} > requirements.new
	mv requirements.new requirements.txt

.PHONY: train test bench bench-growth lock
