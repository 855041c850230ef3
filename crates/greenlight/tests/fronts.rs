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
#[path = "fronts/test_fronts.rs"]
mod test_fronts;
