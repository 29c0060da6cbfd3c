# isopod's two commands are `make run` and `make test`. Both do all the set-up, say what they do, and may be run again.

PACKAGES_BUILD := linux-source-6.12 build-essential flex bison bc libelf-dev libssl-dev xz-utils busybox-static
PACKAGES_TEST := umoci skopeo buildah mmdebstrap strace jq
ISOPOD := target/release/isopod

.PHONY: help run test check setup setup-test kernel demo build

help:
	@echo "make run     everything needed, then a real container in a real microVM"
	@echo "make test    everything needed, then all tests"
	@echo "make check   formatting, lints, walls between rooms, sizes, docs"
	@echo "make build   $(ISOPOD), with its kernel and demo image"

run: build
	@echo "==> $(ISOPOD) run --rm demo"
	@$(ISOPOD) run --rm demo

test: setup-test kernel demo check
	@echo "==> unit tests"
	cargo test --workspace --exclude isopod
	@echo "==> black-box tests (each guest's kernel boots for real)"
	cargo test --release --package isopod -- --test-threads=2
	@echo "==> replay of the fuzz corpus"
	cd fuzz && cargo test --release

check:
	cargo xtask check

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
