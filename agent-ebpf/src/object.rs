//! What every object file needs.
#![expect(unsafe_code, reason = "the kernel finds the licence by its section")]

/// The programs use helpers that the kernel gives to GPL-compatible objects only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
