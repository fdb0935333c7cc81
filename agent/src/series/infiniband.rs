//! InfiniBand and RoCE ports, as the kernel tells of them in `/sys/class/infiniband`.

use super::{Kind, Series, Unit};

pub const ROWS: &[&Series] =
    &[&PORT_UP, &PORT_RATE_BYTES_PER_SECOND, &BYTES_TOTAL, &PACKETS_TOTAL, &COUNTER_TOTAL, &WAIT_TICKS_TOTAL];

const PORT: &[&str] = &["device", "port", "link_layer"];
const DIRECTION: &[&str] = &["device", "port", "link_layer", "direction"];

pub static PORT_UP: Series = Series {
    name: "plumbline_infiniband_port_up",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "Whether the port is active (1) or not (0).",
    source: "ports/N/state, phys_state",
    otel: "hw.network.up",
    labels: PORT,
};

pub static PORT_RATE_BYTES_PER_SECOND: Series = Series {
    name: "plumbline_infiniband_port_rate_bytes_per_second",
    kind: Kind::Gauge,
    unit: Unit::None,
    help: "What the port can carry in one direction.",
    source: "ports/N/rate, Gb/s",
    otel: "hw.network.bandwidth.limit",
    labels: PORT,
};

pub static BYTES_TOTAL: Series = Series {
    name: "plumbline_infiniband_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    help: "Bytes that the port has sent (`transmit`) and received.",
    source: "ports/N/counters/port_xmit_data, port_rcv_data, in units of four bytes",
    otel: "hw.network.io",
    labels: DIRECTION,
};

pub static PACKETS_TOTAL: Series = Series {
    name: "plumbline_infiniband_packets_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Packets that the port has sent (`transmit`) and received.",
    source: "ports/N/counters/port_xmit_packets, port_rcv_packets",
    otel: "hw.network.packets",
    labels: DIRECTION,
};

pub static WAIT_TICKS_TOTAL: Series = Series {
    name: "plumbline_infiniband_wait_ticks_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "Ticks of the port's own clock in which it had something to send and no credit to send it: congestion.",
    source: "ports/N/counters/port_xmit_wait",
    otel: "plumbline.infiniband.wait_ticks",
    labels: PORT,
};

pub static COUNTER_TOTAL: Series = Series {
    name: "plumbline_infiniband_counter_total",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "What else the port counts, by the kernel's name of it: errors, discards, retries and time-outs of RDMA, signs of \
           congestion. A counter of 32 bits that begins anew goes on here.",
    source: "ports/N/counters, ports/N/hw_counters",
    otel: "plumbline.infiniband.counter",
    labels: &["device", "port", "link_layer", "counter"],
};
