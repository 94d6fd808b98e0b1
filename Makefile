# Two commands for new users: `make tutorial` and `make test`. Each first installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: tutorial test readers docs links setup build clean

tutorial: setup  ## execute notebooks 00 to 13 on drawn data, several at a time; prints the path of index.html at the end
	$(BIN)/resnet-tutorial execute

test: setup  ## check generated files and style; run unit tests, notebooks as tests, notebooks with papermill
	$(BIN)/resnet-tutorial build --check
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal
	OMP_NUM_THREADS=1 timeout 2400 $(BIN)/nbdev_test --n_workers 2 --flags needs
	$(BIN)/resnet-tutorial execute --params recipes/parameters/quick.yaml

readers: setup  ## run every notebook as a reader would: without a GPU, data, test libraries or settings
	$(BIN)/python -m resnet_tutorial.workshop.as_reader

docs: setup  ## build the book as a web site with its explorer, in _site/html
	$(BIN)/resnet-tutorial docs
	$(BIN)/resnet-tutorial explore --book --html _site/html/explorer.html

links: setup  ## ask the network for every link of the site
	$(BIN)/resnet-tutorial docs --links

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is %s' % sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip check
	touch $@

build: setup  ## generate the library, the tests and the README from the notebooks
	$(BIN)/resnet-tutorial build

clean:  ## remove the environment, the runs, the executed notebooks and the site
	rm -rf $(VENV) runs executed _site
