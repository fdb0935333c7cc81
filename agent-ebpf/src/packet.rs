//! A packet's pieces: its headers, and bytes of its payload wherever they lie in the kernel's memory.

use crate::{
    files,
    kernel::{off, read, read_into},
    peer::{AF_INET, AF_INET6, Peer},
};

/// Bytes of the payload that lie together.
pub struct Piece {
    /// In the kernel's memory; 0 where no program can read them.
    pub start: u64,
    pub bytes: u64,
}

/// Who is at the other end of a packet, and how it is spoken with.
pub struct Headers {
    pub peer: Peer,
    pub protocol: u32,
    /// Where the header of UDP or TCP is.
    pub transport: u64,
}

/// Which of its two addresses and ports is the other end's.
#[derive(Clone, Copy)]
pub enum End {
    Source = 0,
    Destination = 1,
}

/// The port of the other end, first in the headers of UDP (RFC 768) and TCP (RFC 9293), in network byte order.
#[inline(always)]
pub fn port(skb: u64, end: End) -> u16 {
    read(transport(skb), end as u32 * 2)
}

#[inline(always)]
fn transport(skb: u64) -> u64 {
    let head: u64 = read(skb, off!(skb_head));
    head.wrapping_add(u64::from(read::<u16>(skb, off!(skb_transport_header))))
}

/// The headers of a packet in which they are set: RFC 791 (protocol at 9, addresses at 12 and 16), RFC 8200 (next header at
/// 6, addresses at 8 and 24).
#[inline(always)]
pub fn headers(skb: u64, end: End) -> Headers {
    let head: u64 = read(skb, off!(skb_head));
    let transport = transport(skb);
    let ip = head.wrapping_add(u64::from(read::<u16>(skb, off!(skb_network_header))));
    let mut peer = Peer { address: [0; 4], family: AF_INET, port: read(transport, end as u32 * 2) };
    let protocol: u8 = if read::<u8>(ip, 0) >> 4 == 4 {
        peer.address[0] = read(ip, 12 + end as u32 * 4);
        read(ip, 9)
    } else {
        peer.family = AF_INET6;
        read_into(&raw mut peer.address, ip, 8 + end as u32 * 16);
        read(ip, 6)
    };
    Headers { peer, protocol: u32::from(protocol), transport }
}

/// The first `bytes` behind `offset` from the packet's data, as far as they lie together: in its linear part, or in the
/// first of its fragments (include/linux/skbuff.h, `skb_shared_info`).
#[inline(always)]
pub fn piece(skb: u64, offset: u64, bytes: u64) -> Piece {
    let length: u32 = read(skb, off!(skb_len));
    let elsewhere: u32 = read(skb, off!(skb_data_len));
    let linear = u64::from(length.wrapping_sub(elsewhere));
    let cut = |there: u64| if bytes < there { bytes } else { there };
    if offset < linear {
        let data: u64 = read(skb, off!(skb_data));
        return Piece { start: data.wrapping_add(offset), bytes: cut(linear - offset) };
    }
    let nothing = Piece { start: 0, bytes: 0 };
    let head: u64 = read(skb, off!(skb_head));
    let info = head.wrapping_add(u64::from(read::<u32>(skb, off!(skb_end))));
    if read::<u8>(info, off!(shared_nr_frags)) == 0 {
        return nothing;
    }
    let fragment = info.wrapping_add(u64::from(off!(shared_frags)));
    let there = u64::from(read::<u32>(fragment, off!(frag_bytes)));
    let page = page_address(read(fragment, off!(frag_page)));
    let offset = offset - linear;
    if page == 0 || offset >= there {
        return nothing;
    }
    let start = page.wrapping_add(u64::from(read::<u32>(fragment, off!(frag_start)))).wrapping_add(offset);
    Piece { start, bytes: cut(there - offset) }
}

/// Where the memory lies that a `struct page` stands for; 0 where nobody knows. The kernel maps all memory in one piece, and
/// keeps the `struct page`s in the same order (x86-64: Documentation/arch/x86/x86_64/mm.rst; `__pfn_to_page` and `__va` with
/// `vmemmap_base` and `page_offset_base`).
#[inline(always)]
fn page_address(page: u64) -> u64 {
    let Some(control) = files::control() else { return 0 };
    // A number with its lowest bit set is memory of a device (include/net/netmem.h, `NET_IOV`).
    if control.page_bytes == 0 || page == 0 || page & 1 != 0 {
        return 0;
    }
    let first: u64 = read(control.vmemmap_base_at, 0);
    let memory: u64 = read(control.page_offset_base_at, 0);
    let number = page.wrapping_sub(first) / u64::from(control.page_bytes);
    memory.wrapping_add(number << (control.page_shift & 31))
}
