//! The proxy over real sockets: raw clients on one side, applications that are scripted byte by
//! byte on the other.

mod http {
    mod bodies;
    mod death;
    mod forwarding;
    mod framing;
    mod gate;
    mod lab;
    mod limits;
    mod relay;
    mod services;
    mod upgrades;
    mod wire;
}
