# make run    a hub with fifty simulated devices, in this terminal
# make demo-rollout  a rollout over 2,000 simulated devices that stops itself
# make demo-patterns  programs that manage 300 simulated devices, some of which fail
# make test   everything that must hold, with what it needs installed
# make bench  the measurements against other databases and servers
# make soak   ten minutes of steady work: memory, goroutines, files and disk
# make nightly  a million random queries, a fleet under kill -9, an hour of soak, a reconnect storm
# make build  the binary, ./muster
# make deb    a Debian package, in dist/
# make container  a container image, with buildah, podman or docker
# make lint   only the checks that run no test

GO ?= go

.PHONY: run demo-rollout demo-patterns test bench soak nightly build deb container lint docs clean

build:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or later, https://go.dev/dl/"; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -o muster .
	@printf 'muster: %s bytes\n' "$$(wc -c < muster)"

run: build
	@bash tools/run.sh

demo-rollout: build
	@bash tools/demo-rollout.sh

demo-patterns: build
	@bash tools/demo-patterns.sh

test:
	@bash test/run.sh

lint:
	@bash test/run.sh lint

bench:
	@bash test/bench/run.sh

soak:
	@sh test/fleet/run.sh soak

nightly:
	@sh test/fleet/run.sh nightly

deb:
	@bash packaging/deb.sh

container:
	@bash packaging/container.sh

# The reference pages that are made from the program's own tables.
docs:
	$(GO) test . -run "TestGenerated|TestMonitoring" -update

clean:
	rm -rf muster bin dist
