//! The proxy over real sockets: raw clients on one side, applications that are scripted byte by
//! byte on the other.

mod http {
    mod bodies;
    mod death;
    mod fast_path;
    mod forwarding;
    mod framing;
    mod gate;
    mod lab;
    mod limits;
    mod services;
    mod upgrades;
    mod wire;
}
