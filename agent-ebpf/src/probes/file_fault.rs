//! Pages of a watched file were mapped into a process: how safetensors and llama.cpp read their weights.
//!
//! A fault maps a range of pages that lie in the page cache already, or asks for the one that it needs; since 6.18 it maps
//! whole folios, also beyond that range (mm/filemap.c, `filemap_map_folio_range`; mm/memory.c, `finish_fault`). The figure
//! counts what was mapped or asked for, so it is at least what the process can have seen; what it misses, and where the
//! tracepoints count too much because they do not say into which area pages are mapped, is in the table of hooks. Where
//! neither the tracepoints (6.12) nor fentry are there, the figure is absent.
#![expect(unsafe_code, reason = "kernel edge")]

use aya_ebpf::{
    helpers::generated::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fentry, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, RawTracePointContext},
};
use plumbline_ebpf::{
    program,
    record::{FileId, FileOpen, KIND_ENROL, WatchedFile},
};

use crate::{
    emit::{self, Lane},
    files, folio,
    kernel::{off, read},
    reads::{self, Figure, Range},
    task,
};

/// `filemap_map_pages(struct vm_fault *vmf, pgoff_t start_pgoff, pgoff_t end_pgoff)`
#[fentry(function = "filemap_map_pages")]
pub fn file_map_pages_fentry(ctx: FEntryContext) -> i32 {
    let area: u64 = read(ctx.arg(0), off!(vm_fault_vma));
    observe(mapping_of(area), Pages::Mapped(ctx.arg(1), ctx.arg(2)), area)
}

/// `filemap_fault(struct vm_fault *vmf)`
#[fentry(function = "filemap_fault")]
pub fn file_fault_fentry(ctx: FEntryContext) -> i32 {
    let fault: u64 = ctx.arg(0);
    let area: u64 = read(fault, off!(vm_fault_vma));
    observe(mapping_of(area), Pages::AskedFor(read(fault, off!(vm_fault_pgoff))), area)
}

#[btf_tracepoint(function = "mm_filemap_map_pages")]
pub fn file_map_pages_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe(ctx.arg(0), Pages::Mapped(ctx.arg(1), ctx.arg(2)), 0)
}

#[btf_tracepoint(function = "mm_filemap_fault")]
pub fn file_fault_tp_btf(ctx: BtfTracePointContext) -> i32 {
    observe(ctx.arg(0), Pages::AskedFor(ctx.arg(1)), 0)
}

#[raw_tracepoint(tracepoint = "mm_filemap_map_pages")]
pub fn file_map_pages_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe(ctx.arg(0), Pages::Mapped(ctx.arg(1), ctx.arg(2)), 0)
}

#[raw_tracepoint(tracepoint = "mm_filemap_fault")]
pub fn file_fault_raw_tp(ctx: RawTracePointContext) -> i32 {
    observe(ctx.arg(0), Pages::AskedFor(ctx.arg(1)), 0)
}

/// Of a file, by number.
#[derive(Clone, Copy)]
enum Pages {
    /// First and last.
    Mapped(u64, u64),
    AskedFor(u64),
}

#[inline(always)]
fn mapping_of(area: u64) -> u64 {
    let file: u64 = read(area, off!(vma_file));
    read(file, off!(file_mapping))
}

/// Tells the daemon, which maps a file of an overlay, in which inode its pages lie.
#[inline(always)]
fn answer(inode: u64, id: &FileId) {
    emit::record(Lane::Events, program::FILE_FAULT, |record: *mut FileOpen| {
        // SAFETY: a ring reservation of this size.
        unsafe {
            core::ptr::write_bytes(record, 0, 1);
            emit::stamp(&raw mut (*record).header, KIND_ENROL, program::FILE_FAULT, task::current());
            (*record).ino = id.ino;
            (*record).dev = id.dev;
            (*record).generation = read(inode, off!(inode_generation));
        }
    });
}

/// Pages of a page cache, mapped into this area (`struct vm_area_struct`), or 0 where nobody knows.
#[inline(always)]
fn observe(mapping: u64, pages: Pages, area: u64) -> i32 {
    let Some(control) = files::control() else { return 0 };
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let enrolling = control.enrol_pid != 0 && control.enrol_pid == pid;
    if control.watched == 0 && !enrolling {
        return 0;
    }
    let shift = control.page_shift & 31;
    let inode: u64 = read(mapping, off!(mapping_host));
    let id = files::id(inode);
    if enrolling {
        answer(inode, &id);
        return 0;
    }
    let mut watch = WatchedFile { watched_ino: 0, watched_dev: 0, generation: 0 };
    if !files::is_watched(inode, &id, &mut watch) {
        return 0;
    }
    let size: u64 = read(inode, off!(inode_size));
    let (mut first, mut last) = match pages {
        Pages::Mapped(first, last) => (first, last),
        Pages::AskedFor(page) => (page, page),
    };
    if control.maps_folios != 0 {
        let whole_pages = size >> shift;
        let asked = last;
        (first, last) = whole_folio(mapping, first, whole_pages, area, shift);
        if asked > last {
            (_, last) = whole_folio(mapping, asked, whole_pages, area, shift);
        }
    }
    let start_bytes = first << shift;
    let end = (last + 1) << shift;
    let end = if end < size { end } else { size };
    if start_bytes < end {
        let range = Range { start_bytes, bytes: end - start_bytes };
        reads::add(program::FILE_FAULT, inode, &id, &watch, Figure::Faulted, range);
    }
    0
}

/// A folio that goes beyond the file's end, the area's, or one page table, is mapped page by page.
#[inline(always)]
fn whole_folio(mapping: u64, page: u64, whole_pages: u64, area: u64, shift: u32) -> (u64, u64) {
    let (first, last) = folio::pages(mapping, page);
    if last >= whole_pages || (area != 0 && !is_in_one_table(area, first, last, shift)) {
        return (page, page);
    }
    (first, last)
}

/// Whether the area has all these pages of its file, in one table: of as many entries of 8 bytes as fill a page.
#[inline(always)]
fn is_in_one_table(area: u64, first: u64, last: u64, shift: u32) -> bool {
    let (start, end): (u64, u64) = (read(area, off!(vma_start)), read(area, off!(vma_end)));
    let offset: u64 = read(area, off!(vma_pgoff));
    let table = 2 * shift - 3;
    let from = start.wrapping_add(first.wrapping_sub(offset) << shift);
    let to = start.wrapping_add((last.wrapping_sub(offset) + 1) << shift);
    first >= offset && to <= end && from >> (table & 63) == (to - 1) >> (table & 63)
}
