//! Every front against the same suite, and Nginx as a neighbour from end to end.
//!
//! Tests that need Nginx say so; they start masters of their own, in folders of their own.

#[path = "fronts/app.rs"]
mod app;
#[path = "fronts/conformance.rs"]
mod conformance;
#[path = "fronts/doctor.rs"]
mod doctor;
#[path = "fronts/fake.rs"]
mod fake;
#[path = "fronts/fleet.rs"]
mod fleet;
#[path = "fronts/intact.rs"]
mod intact;
#[path = "fronts/nginx_fleet.rs"]
mod nginx_fleet;
#[expect(dead_code, reason = "requests see what a gate does")]
#[path = "../../greenlight-gate/tests/shell/prompt.rs"]
mod prompt;
#[path = "../../greenlight-gate/tests/shell/mod.rs"]
mod shell;
#[path = "fronts/test_fronts.rs"]
mod test_fronts;
