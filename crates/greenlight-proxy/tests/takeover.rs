//! Real proxy processes: taken over under load, killed, stopped, and asked by strangers.
//!
//! The test program is also the proxy program: with options in its environment it runs one.

#[path = "takeover/app.rs"]
mod app;
#[path = "takeover/client.rs"]
mod client;
#[path = "takeover/death.rs"]
mod death;
#[path = "takeover/descriptors.rs"]
mod descriptors;
#[path = "takeover/hand_over.rs"]
mod hand_over;
#[path = "takeover/load.rs"]
mod load;
#[path = "takeover/proxy.rs"]
mod proxy;
#[path = "takeover/reading.rs"]
mod reading;
#[path = "takeover/standing.rs"]
mod standing;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(options) = std::env::var(proxy::OPTIONS) {
        return proxy::run(&options);
    }
    let arguments = Arguments::from_args();
    let mut trials = hand_over::trials();
    trials.extend(death::trials());
    trials.extend(descriptors::trials());
    trials.extend(reading::trials());
    trials.extend(standing::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test on a runtime of its own.
fn trial<Fut: Future<Output = ()>>(
    name: &str,
    test: impl FnOnce() -> Fut + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(test());
        runtime.shutdown_background();
        Ok(())
    })
}
