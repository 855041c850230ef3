//! The metrics in the OpenMetrics text format, which Prometheus reads.

use greenlight_admin::StatusAnswer;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The content type for scrapers.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ColorLabels {
    service: String,
    color: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FlightLabels {
    service: String,
    color: &'static str,
    kind: &'static str,
}

/// Renders a status as metrics. The gates count; these families only carry what they counted.
pub(super) fn render(status: &StatusAnswer) -> String {
    let admitted = Family::<ColorLabels, Counter>::default();
    let in_flight = Family::<FlightLabels, Gauge>::default();
    let open = Family::<ServiceLabel, Gauge>::default();
    for (name, service) in &status.services {
        let colors = [
            ("blue", service.blue, service.admitted_blue),
            ("green", service.green, service.admitted_green),
        ];
        for (color, flight, count) in colors {
            let service = name.clone();
            let labels = ColorLabels { service, color };
            admitted.get_or_create(&labels).inc_by(count);
            for (kind, count) in [
                ("request", flight.requests),
                ("stream", flight.streams),
                ("upgrade", flight.upgrades),
            ] {
                let service = name.clone();
                let labels = FlightLabels {
                    service,
                    color,
                    kind,
                };
                in_flight.get_or_create(&labels).set(signed(count));
            }
        }
        let service_label = ServiceLabel {
            service: name.clone(),
        };
        let is_open = i64::from(service.state == "open");
        open.get_or_create(&service_label).set(is_open);
    }
    let draining_processes = Gauge::<i64>::default();
    draining_processes.set(i64::try_from(status.draining).unwrap_or(i64::MAX));
    let max_descriptors = Gauge::<i64>::default();
    max_descriptors.set(status.max_descriptors.map_or(i64::MAX, signed));
    let mut registry = Registry::with_prefix("greenlight_proxy");
    registry.register(
        "admitted",
        "Requests whose first byte was written to the application",
        admitted,
    );
    registry.register(
        "in_flight",
        "Requests, streams and upgraded connections in flight",
        in_flight,
    );
    registry.register("open", "1 if the service's gate admits requests", open);
    registry.register(
        "draining_processes",
        "Earlier processes that have handed over and still have connections",
        draining_processes,
    );
    registry.register(
        "max_descriptors",
        "Descriptors that the process may have open at once",
        max_descriptors,
    );
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to a string does not fail");
    text
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
