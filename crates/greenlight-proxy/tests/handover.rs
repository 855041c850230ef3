//! Real proxy processes: taken over under load, killed, stopped, and asked by strangers.
//!
//! The test program is also the proxy program: with options in its environment it runs one.

#[path = "handover/activation.rs"]
mod activation;
#[path = "handover/app.rs"]
mod app;
#[path = "handover/client.rs"]
mod client;
#[path = "handover/death.rs"]
mod death;
#[path = "handover/descriptors.rs"]
mod descriptors;
#[path = "handover/exchange.rs"]
mod exchange;
#[path = "handover/load.rs"]
mod load;
#[path = "handover/proxy.rs"]
mod proxy;
#[path = "handover/service_control.rs"]
mod service_control;
#[path = "handover/status.rs"]
mod status;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Ok(options) = std::env::var(proxy::OPTIONS) {
        return proxy::run(&options);
    }
    let arguments = Arguments::from_args();
    let mut trials = exchange::trials();
    trials.extend(activation::trials());
    trials.extend(death::trials());
    trials.extend(descriptors::trials());
    trials.extend(status::trials());
    trials.extend(service_control::trials());
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
