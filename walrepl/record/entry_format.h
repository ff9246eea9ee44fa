/* The bytes of the entries in the Raft log: for the entry_*.c alone.
 *
 * Every entry begins with the same 16 bytes; each type goes on as drawn. Numbers are little-endian.
 * A field that is drawn as 0 must be 0, so that a later version can give it a meaning.
 *
 *   all          0: u8 type | 1: u8 version | 2: u16 0 | 4: u32 0   | 8: u64 db_id
 *   CREATE       db_id is 0, 2: u16 name_len, 4: u32 mode
 *               16: u32 uid | 20: u32 gid | 24: name, without a NUL, to the end
 *   UNLINK      nothing more
 *   SETATTR      4: u32 mode
 *               16: u32 uid | 20: u32 gid | 24: u32 attr_valid | 28: u32 omit (1 atime, 2 mtime)
 *               32: i64 atime_ns | 40: i64 mtime_ns
 *   PAGES        4: u32 part
 *               16: u64 origin | 24: u64 sequence | 32: u32 page_size | 36: u32 image_count
 *               40: images, image_count * page_size bytes
 *                 : page numbers, image_count * u32
 *   COMMIT      as PAGES up to 40, then
 *               40: u64 base_version | 48: u64 checksum | 56: u32 page_count | 60: u32 total_pages
 *               64: u32 commit_mode | 68: u32 dropped_count
 *               72: images, then page numbers, as in PAGES
 *                 : page numbers that are dropped, dropped_count * u32; then there are no images
 *   DISCARD     16: u64 origin | 24: u64 sequence
 *   GROUP       db_id is 0, 2: u16 member_count, at least 2
 *               16: for each member, in ascending order of db_id:
 *                     u32 len | u32 0 | a COMMIT entry of len bytes | zeros up to a multiple of 8
 *   MKDIR       as CREATE
 *   RMDIR       nothing more
 *   RENAME       2: u16 name_len | 4: u32 flags (1: keep what has the name)
 *               16: name, without a NUL, to the end
 *
 * The images come before the page numbers so that they stay aligned.
 *
 * The version says how an entry reads. A later one is written only where rlog_format_level() allows its level
 * (format.h), which rlog_submit() is told; versions 1 and 2 are of level 1.
 *
 * Version history: 1, the first. (DISCARD and GROUP joined it before any release.)
 *   2: PAGES may repeat pages of those before them, in any order from one to the next, and a COMMIT may
 *      drop pages; commit_mode 3; MKDIR, RMDIR and RENAME; names with a '/'. Entries of version 1 read the same.
 */
#ifndef WALREPL_RECORD_ENTRY_FORMAT_H
#define WALREPL_RECORD_ENTRY_FORMAT_H

#include "record/entry.h"

#define ENTRY_VERSION 2

#define COMMON_BYTES 16u
#define CREATE_BYTES 24u
#define SETATTR_BYTES 48u
#define PAGES_BYTES 40u
#define COMMIT_BYTES 72u
#define DISCARD_BYTES 32u
#define GROUP_BYTES 16u
#define MEMBER_BYTES 8u
#define RENAME_BYTES 16u

_Static_assert(COMMIT_BYTES + 4 * WREP_ENTRY_DROPPED_MAX <= WREP_ENTRY_BYTES,
	       "a COMMIT that drops as many as it may");

#define RENAME_KEEP 1u
#define OMIT_ATIME 1u
#define OMIT_MTIME 2u

static inline size_t header_bytes(enum wrep_entry_type type)
{
	return type == WREP_ENTRY_COMMIT ? COMMIT_BYTES : PAGES_BYTES;
}

static inline size_t padded(size_t len)
{
	return (len + 7) / 8 * 8;
}

#endif
