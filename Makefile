# Each of these but lock runs in .venv, which is made with the exact lock installed:
#
#   make train            train_encrypted.py; its options in ARGS, as in make train ARGS="--epochs 2"
#   make test             the tests, after the linter; make test-all: those marked thorough, too
#   make notebook         run tutorial.ipynb from start to end, and keep its outputs in it
#   make hosts            the tutorial with each party in a process of its own
#   make audit            record what each party sees, and attack it
#   make operations       run each operation: errors, rounds, bytes
#   make private          train on all of MNIST with differential privacy
#   make privacy-audit    attack private models
#   make bench            seconds of a step, each protocol; likewise bench-growth, bench-rounds,
#                         bench-peers, bench-hosts
#   make pictures         draw who sees what, and anew all pictures that have a record
#   make lock             make the lock anew (needs uv)
PYTHON ?= python3

help:
	@sed -n 's/^#   //p' Makefile

train: .venv/lock
	.venv/bin/python train_encrypted.py $(ARGS)

notebook: .venv/lock
	OMP_NUM_THREADS=1 .venv/bin/python -c 'import nbclient, nbformat; \
	  notebook = nbformat.read("tutorial.ipynb", as_version=4); \
	  nbclient.NotebookClient(notebook, record_timing=False, coalesce_streams=True).execute(); \
	  nbformat.write(notebook, "tutorial.ipynb")'

hosts: .venv/lock
	.venv/bin/python -m smpc.hosts loopback $(ARGS)

test: PART = -m "not thorough"
test test-all: .venv/lock
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= \
	  .venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 10 $(PART) $(ARGS)

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

pictures: .venv/lock
	.venv/bin/python -m benchmarks.pictures

# PYTHON if it is one that the lock is for, else one of these on the path, else one of uv's.
FIND_PYTHON = for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	    "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	      2> /dev/null && { command -v "$$python"; exit; }; \
	  done; \
	  uv python find '>=3.11,<3.14' 2> /dev/null && exit; \
	  echo "This needs Python 3.11, 3.12 or 3.13, or uv: install one of them" >&2; exit 1

.venv/lock: requirements.txt
	@echo "Installing into .venv: on Linux this takes 5 GB of disk, since torch's wheel has CUDA"
	@python=$$($(FIND_PYTHON)) && "$$python" -m venv .venv
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

.PHONY: help train notebook hosts test test-all audit operations private privacy-audit bench bench-growth bench-rounds bench-peers bench-hosts pictures lock lock-peers
