# Two commands do everything on a fresh machine:
#   make reproduce                    the whole chain on images that need no download, then a table and a figure
#   make reproduce DATASET=cifar10    the same for CIFAR-10 (place the images first: python data/download.py cifar10 ood 300k)
#   make test                         lint, then the tests but for the long ones
#   make lint, make test-long         each alone
# Bring your own torch: TORCH="torch==2.13.0 torchvision==0.28.0" (before the first make, or after make clean), or run make in an
# active environment that has torch.

DATASET ?= digits
TORCH ?=
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
# An active environment is used if torch is in it, and gets what requirements.txt asks for; otherwise .venv is made.
HAS_TORCH := $(if $(ACTIVE),$(shell $(ACTIVE)/bin/python -c "import torch; print('yes')" 2>/dev/null))
ifeq ($(HAS_TORCH),yes)
PYTHON := $(ACTIVE)/bin/python
READY := $(ACTIVE)/.sr-ood-ready
else
PYTHON := .venv/bin/python
READY := .venv/.ready
endif

.PHONY: reproduce lint test test-long clean
reproduce: $(READY)
	$(PYTHON) reproduce.py $(DATASET)

lint: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

test: lint
	$(PYTHON) -m pytest tests -q

test-long: $(READY)
	$(PYTHON) -m pytest tests -q -m long

.venv/bin/python:
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version)'
	python3 -m venv .venv

$(READY): requirements.txt $(if $(HAS_TORCH),,.venv/bin/python)
ifneq ($(strip $(TORCH)),)
	$(PYTHON) -m pip install -q $(TORCH)
endif
	$(PYTHON) -m pip install -q -r requirements.txt
	touch $(READY)

clean:
	rm -rf .venv CIFAR/cache data/cache
