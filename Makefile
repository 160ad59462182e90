# make demo: compress a photo that ships with the project, decode the file, and show both side by side.
# make test: lint and test.  Both install what they need into .venv.
# make web: the codec in a browser, on http://127.0.0.1:8000/, or with PORT=N elsewhere; fetches its libraries with npm.
# make web-dist: the same page as a folder for any static host, web/dist.
# make test-web: the page's tests, in Chromium where that is installed; says what is missing, and installs nothing.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

.PHONY: demo test test-web web web-dist clean

demo: .venv/installed
	$(BIN)/python compress.py -i images/kodim21.png -o demo/kodim21.png --overwrite

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy . && $(BIN)/mypy data/*.py
	$(BIN)/python -m pytest -q -n auto --dist loadfile

web: .venv/installed web/node_modules/fflate/package.json
	$(BIN)/python web/serve.py --port $(PORT)

web-dist: .venv/installed web/node_modules/fflate/package.json
	$(BIN)/python web/serve.py --dist web/dist

test-web:
	@test -x $(BIN)/pytest || { echo "make test-web: needs $(BIN)/pytest; make test installs it"; exit 2; }
	$(BIN)/python -m pytest -q -rs tests/web

web/node_modules/fflate/package.json: web/package-lock.json
	cd web && npm ci --omit=dev --ignore-scripts --no-audit --no-fund
	touch $@

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

# What users made stays: samples/, tensorboard/, checkpoints/, and whatever else they put into demo/.
clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
	rm -f demo/kodim21.png demo/kodim21.gc
	-rmdir demo 2> /dev/null || true
