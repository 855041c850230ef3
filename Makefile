# `make test` installs what the tests need, starts it, and runs every test.
.PHONY: test check doc unit

test: check doc unit

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

unit:
	cargo test --workspace --locked
