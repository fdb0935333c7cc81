//! Connections: begin, end, outcome.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::MetadataExt as _,
};

use plumbline::event::{self, Connect, ConnectHow, NetNs, Protocol, What};

use super::{is_me, same, this_task};
use crate::bench::{Bench, Outcome};

pub(super) fn tcp(bench: &mut Bench, ip: IpAddr) -> Outcome {
    let listener = TcpListener::bind((ip, 0)).map_err(|error| error.to_string())?;
    let to = listener.local_addr().map_err(|error| error.to_string())?;
    let _stream = TcpStream::connect(to).map_err(|error| error.to_string())?;
    expect_connect(bench, Protocol::Tcp, to)
}

pub(super) fn v4_mapped(bench: &mut Bench) -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    let to = listener.local_addr().map_err(|error| error.to_string())?;
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to.port());
    let _stream = TcpStream::connect(mapped).map_err(|error| error.to_string())?;
    expect_connect(bench, Protocol::Tcp, to)
}

pub(super) fn bytes_each_way(bench: &mut Bench) -> Outcome {
    let text = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    let to = listener.local_addr().map_err(text)?;
    let mut ours = TcpStream::connect(to).map_err(text)?;
    let (mut theirs, _) = listener.accept().map_err(text)?;
    ours.write_all(&[1; 1000]).map_err(text)?;
    theirs.read_exact(&mut [0; 1000]).map_err(text)?;
    theirs.write_all(&[2; 500]).map_err(text)?;
    ours.read_exact(&mut [0; 500]).map_err(text)?;
    // Both ends, so that nothing waits for the other.
    drop(theirs);
    drop(ours);
    let end = bench.expect("the end", |event| match (&event.what, &event.task) {
        (What::ConnectEnd(end), Some(task)) if end.port == to.port() && is_me(task) => Some(*end),
        _ => None,
    })?;
    same("outcome", &end.outcome, &event::Outcome::Closed)?;
    same("bytes sent", &end.bytes_sent, &1000)?;
    // The end of the stream may count as one.
    same("bytes received", &(500..=501).contains(&end.bytes_received), &true)
}

pub(super) fn refused(bench: &mut Bench) -> Outcome {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let to = closed.map_err(|error| error.to_string())?;
    if TcpStream::connect(to).is_ok() {
        return Err("the connection was not refused".to_owned());
    }
    expect_connect(bench, Protocol::Tcp, to)
}

pub(super) fn udp(bench: &mut Bench, ip: IpAddr) -> Outcome {
    let listener = UdpSocket::bind((ip, 0)).map_err(|error| error.to_string())?;
    let to = listener.local_addr().map_err(|error| error.to_string())?;
    let socket = UdpSocket::bind((ip, 0)).map_err(|error| error.to_string())?;
    socket.connect(to).map_err(|error| error.to_string())?;
    expect_connect(bench, Protocol::Udp, to)
}

fn expect_connect(bench: &mut Bench, protocol: Protocol, to: SocketAddr) -> Outcome {
    let own = fs::metadata("/proc/self/ns/net").map_err(|error| error.to_string())?.ino();
    // To itself; what a datagram leaves from is chosen later.
    let source = (protocol == Protocol::Tcp).then_some(to.ip());
    let expected = |net_ns| Connect {
        protocol,
        address: to.ip(),
        port: to.port(),
        how: ConnectHow::Begin,
        source,
        net_ns,
        denied_by: None,
    };
    let wanted = format!("{:?}", expected(NetNs::default()));
    let (task, net_ns) = bench.expect(&wanted, |event| match (&event.what, &event.task) {
        (What::Connect(connect), Some(task)) if *connect == expected(connect.net_ns) && is_me(task) => {
            Some((task.clone(), connect.net_ns))
        }
        _ => None,
    })?;
    same("network namespace", &u64::from(net_ns.inum), &own)?;
    this_task(&task)
}
