# train · hosts · test · audit · operations · private · privacy-audit · bench · bench-growth ·
# bench-rounds · bench-peers · bench-hosts, each in .venv with the exact lock installed; `make lock`
# makes the lock anew.
PYTHON ?= python3

train: .venv/lock
	.venv/bin/python train_encrypted.py $(ARGS)

hosts: .venv/lock
	.venv/bin/python -m smpc.hosts loopback $(ARGS)

test: .venv/lock
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= \
	  .venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

audit: .venv/lock
	.venv/bin/python -m smpc.audit

operations: .venv/lock
	.venv/bin/python -m benchmarks.operations $(ARGS)

private: .venv/lock
	.venv/bin/python -m benchmarks.private

privacy-audit: .venv/lock
	.venv/bin/python -m benchmarks.privacy

bench: .venv/lock
	.venv/bin/python -m benchmarks.training

bench-growth: .venv/lock
	.venv/bin/python -m benchmarks.growth

bench-rounds: .venv/lock
	.venv/bin/python -m benchmarks.rounds

bench-peers: .venv/lock
	.venv/bin/python -m benchmarks.peers

bench-hosts: .venv/lock
	.venv/bin/python -m benchmarks.hosts

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

# The peers' locks; what they ask for and never import is left out by the overrides in each file.
lock-peers:
	cd benchmarks/peers && for peer in crypten=3.9 spu=3.11 tf_encrypted=3.9; do \
	  uv pip compile $${peer%=*}.in --override $${peer%=*}.in --python-version $${peer#*=} \
	    --python-platform x86_64-unknown-linux-gnu --generate-hashes --no-header --no-annotate \
	    --quiet --output-file $${peer%=*}.txt; done

.PHONY: train hosts test audit operations private privacy-audit bench bench-growth bench-rounds bench-peers bench-hosts lock lock-peers
