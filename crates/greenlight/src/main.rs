//! The one binary.

/// Each request frees what it was read into; the system's allocator then gives memory back to the
/// kernel and fetches it again all the time. See `docs/design/benchmarks.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    greenlight::cli::main()
}
