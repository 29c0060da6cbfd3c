# isopod's two commands are `make run` and `make test`. Both do all the set-up, say what they do, and may be run again.

PACKAGES_BUILD := linux-source-6.12 build-essential flex bison bc libelf-dev libssl-dev xz-utils busybox-static python3-venv
PACKAGES_TEST := umoci skopeo mmdebstrap strace docker-registry openssl e2fsprogs podman buildah
ISOPOD := target/release/isopod
# Two machines at once: a guest's kernel keeps a processor busy where KVM emulates.
MACHINES ?= 2

.PHONY: help run test check build kernel demo setup setup-test

help:
	@echo "make run     everything needed, then a real container in a real microVM"
	@echo "make test    everything needed, then all tests"
	@echo "make check   formatting, lints, walls between rooms, sizes, dependencies, docs"
	@echo "make build   $(ISOPOD), with its kernel and demo image"

run: build
	@echo "==> $(ISOPOD) run --rm demo"
	@$(ISOPOD) run --rm demo

test: setup-test kernel demo check
	@echo "==> unit tests"
	cargo test --workspace --exclude isopod
	@echo "==> replay of the fuzz targets' corpus"
	cargo test --manifest-path fuzz/Cargo.toml --target-dir target/fuzz-replay
	@echo "==> black-box tests, $(MACHINES) machines at once"
	cargo test --package isopod -- --test-threads=$(MACHINES)

check: setup
	@echo "==> check"
	@cargo xtask check

build: kernel demo
	@echo "==> building $(ISOPOD)"
	cargo build --release

kernel: setup
	@echo "==> guest kernel"
	@cargo xtask kernel

demo: setup
	@echo "==> demo image"
	@cargo xtask rootfs

setup:
	@.ci/packages $(PACKAGES_BUILD)

setup-test: setup
	@.ci/packages $(PACKAGES_TEST)
