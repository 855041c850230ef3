# `make test` installs what the tests need, starts it, and runs every test.
.PHONY: test check doc unit docker crash sim model bench

UNIT_TOOLS = nginx=nginx haproxy=haproxy ip=iproute2 sshd=openssh-server ssh=openssh-client sudo=sudo systemd-analyze=systemd /usr/bin/python3=python3
DOCKER_TOOLS = dockerd=docker.io nginx=nginx haproxy=haproxy ip=iproute2 iptables=iptables curl=curl node=nodejs python3=python3 podman=podman /usr/lib/cni/bridge=containernetworking-plugins runc=runc

# Where tests write their files. Benchmarks write to the disk.
unit docker crash: export TMPDIR := $(shell scripts/test-folder)

# Those with Docker and the crashes wait more than they compute: they run one after the other beside the rest.
test: check doc
	scripts/install-test-tools $(UNIT_TOOLS) $(DOCKER_TOOLS)
	cargo test --workspace --locked --no-run
	$(MAKE) --jobs=2 --output-sync=line unit docker crash

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/lint-actions

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Ignored tests need another program, or root. Here they run, and fail if the program is missing.
unit:
	scripts/install-test-tools $(UNIT_TOOLS)
	cargo test --workspace --locked -- --include-ignored --skip docker --skip killed::

# Every process of a fleet under load is killed at each of its effects.
crash:
	cargo test --workspace --locked --test crash

# `make sim SEEDS=1000000` simulates more fleets than `make test` does; FROM is the first seed.
SEEDS ?= 20000
FROM ?= 0
sim:
	SEEDS=$(SEEDS) FROM=$(FROM) cargo test -p greenlight-protocol --test sim --locked -- --nocapture every_seed

# The model check with larger bounds; takes a night.
model:
	cargo bench --package greenlight-protocol --bench deep_model --locked

# Everything that needs Docker, with a daemon of its own; and the runtime's suite with Podman.
# The scripts do not pass make's jobserver on, so cargo is not told of one.
docker:
	scripts/install-test-tools $(DOCKER_TOOLS)
	cargo test --workspace --locked --no-run
	MAKEFLAGS= scripts/with-dockerd cargo test --workspace --tests --locked --offline docker -- --include-ignored
	MAKEFLAGS= scripts/with-podman cargo test --workspace --locked --offline --test docker_runtime -- --include-ignored

# Compares with Debian's nginx and HAProxy, and with other ways to deploy, on this machine; takes about a quarter of an hour.
# Fails if a bound is missed.
bench:
	scripts/install-test-tools nginx=nginx haproxy=haproxy taskset=util-linux
	cargo run --release --locked -p greenlight-bench -- all --strict
