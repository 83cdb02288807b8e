"""What each report field tells, for `-o help`; loaded for that alone."""

_TEXT = """
lv_uuid The LV's own identity, which no rename changes.
lv_name Its name; hidden ones stand in brackets.
lv_full_name VG/LV.
lv_path Where it is used on this host, once it is active here.
lv_dm_path Where device-mapper would have it.
lv_parent The LV that it is a part of.
lv_layout How its extents are laid out: linear, striped, raid, thin and so on.
lv_role What it is for: public or private, and in which part.
lv_initial_image_sync A mirror or RAID of which all images were made equal once.
lv_image_synced A mirror or RAID image that is equal to the others.
lv_merging A snapshot on its way back into its origin.
lv_converting It is being made into another kind of LV.
lv_allocation_policy How its extents are chosen.
lv_allocation_locked Its extents stay where they are (pvmove).
lv_fixed_minor Its device number is fixed.
lv_skip_activation It is passed over when a whole VG is activated.
lv_autoactivation Stock LVM2 may activate it by itself.
lv_when_full What a thin pool does when it is full: error or queue.
lv_active In which way it is active.
lv_active_locally It is active on this host.
lv_active_remotely It is active on another host.
lv_active_exclusively It is active on one host that nobody shares it with.
lv_major The fixed major device number; -1: none.
lv_minor The fixed minor device number; -1: none.
lv_read_ahead How much is read ahead, as it is set.
lv_size Its size.
lv_metadata_size Of a thin or cache pool: the size of its metadata.
seg_count Of how many segments it is.
origin What a snapshot or thin LV was made of.
origin_uuid The same, by uuid.
origin_size The size of a snapshot's origin.
lv_ancestors What it was made of, and that, and so on; as far as it is there.
lv_full_ancestors The same, with what was removed since.
lv_descendants What was made of it; as far as it is there.
lv_full_descendants The same, with what was removed since.
raid_mismatch_count Differences that the last scrubbing of a RAID found.
raid_sync_action What a RAID is doing: idle, resync, recover, check, repair.
raid_write_behind How many writes a write-mostly RAID1 image may lag.
raid_min_recovery_rate At least so fast a RAID is made equal again.
raid_max_recovery_rate At most so fast a RAID is made equal again.
raidintegritymode How a RAID's checksums are kept: journal or bitmap.
raidintegrityblocksize How much one checksum of a RAID is for.
integritymismatches Checksums of a RAID image that were wrong.
move_pv The PV that is being emptied through it (pvmove).
move_pv_uuid The same, by uuid.
convert_lv The LV that it is to become a part of.
convert_lv_uuid The same, by uuid.
mirror_log The LV that holds a mirror's log.
mirror_log_uuid The same, by uuid.
data_lv The LV that holds a pool's data.
data_lv_uuid The same, by uuid.
metadata_lv The LV that holds a pool's metadata.
metadata_lv_uuid The same, by uuid.
pool_lv The pool that it has its space of.
pool_lv_uuid The same, by uuid.
lv_tags Its tags.
lv_profile The profile that its metadata names.
lv_lockargs What a lock manager keeps of it; `dlm` here.
lv_time When it was made.
lv_time_removed When a historical LV was removed.
lv_host On which host it was made.
lv_modules Kernel modules that it needs.
lv_historical It is remembered only; it was removed.
writecache_block_size Of how large blocks a writecache is.
lv_kernel_major Its device's major number; -1: none is there.
lv_kernel_minor Its device's minor number; -1: none is there.
lv_kernel_read_ahead How much the kernel reads ahead.
lv_permissions Whether its device can be written.
lv_suspended Its device is suspended.
lv_live_table Its device has a table.
lv_inactive_table Its device has a second table that waits.
lv_device_open Somebody has its device open.
data_percent How full a thin LV, snapshot, cache or pool is.
snap_percent How full a snapshot is.
metadata_percent How full a pool's metadata is.
copy_percent How far a mirror, RAID, pvmove, zeroing or wiping is.
sync_percent How far a mirror, RAID or pvmove is.
cache_total_blocks Blocks that a cache has.
cache_used_blocks Blocks of a cache that are used.
cache_dirty_blocks Blocks of a cache that its origin does not have yet.
cache_read_hits Reads that a cache answered.
cache_read_misses Reads that it did not.
cache_write_hits Writes that met a cached block.
cache_write_misses Writes that did not.
kernel_cache_settings Settings of a cache's policy, as the kernel has them.
kernel_cache_policy The policy of a cache, as the kernel has it.
kernel_metadata_format The format of a cache's metadata, as the kernel has it.
lv_health_status What is wrong with it: partial, a RAID that lacks an image, and so on.
kernel_discards What a thin pool does with discards, as the kernel has it.
lv_check_needed A pool's metadata should be checked.
lv_merge_failed A snapshot could not be merged.
lv_snapshot_invalid A snapshot overflowed, and is of no use.
vdo_operating_mode What a VDO volume is doing.
vdo_compression_state Whether a VDO volume compresses.
vdo_index_state Whether a VDO volume's index is there.
vdo_used_size What a VDO volume takes of its pool.
vdo_saving_percent What a VDO volume saves.
writecache_total_blocks Blocks that a writecache has.
writecache_free_blocks Blocks of it that are free.
writecache_writeback_blocks Blocks of it that are being written back.
writecache_error How often it failed.
lv_attr Its state in ten letters: lvs(8).
pv_fmt Of which metadata format the PV is.
pv_uuid The PV's own identity.
dev_size The size of its device.
pv_name The device that it is on.
pv_major Its device's major number.
pv_minor Its device's minor number.
pv_mda_free What a change of the metadata may have of its smallest area.
pv_mda_size The size of its smallest metadata area.
pv_ext_vsn The version of its header's extension.
pe_start Where its first extent begins.
pv_size The size of its extents together.
pv_free What of them is free.
pv_used What of them is used.
pv_attr Its state in letters: pvs(8).
pv_allocatable New extents may be taken of it.
pv_exported Its VG is exported.
pv_missing It was not found.
pv_pe_count How many extents it has.
pv_pe_alloc_count How many of them are used.
pv_tags Its tags.
pv_mda_count How many metadata areas it has.
pv_mda_used_count How many of them are used.
pv_ba_start Where its bootloader area begins.
pv_ba_size The size of its bootloader area.
pv_in_use It is marked as a VG's.
pv_duplicate Another device claims to be it.
pv_device_id What names its device in the devices file.
pv_device_id_type Of which kind that name is.
vg_fmt Of which metadata format the VG is.
vg_uuid The VG's own identity, which no rename changes.
vg_name Its name.
vg_attr Its state in letters: vgs(8).
vg_permissions Whether it can be changed.
vg_extendable PVs may be added and taken out.
vg_exported It is exported.
vg_autoactivation Stock LVM2 may activate it by itself.
vg_partial PVs of it are missing.
vg_allocation_policy How extents are chosen in it.
vg_clustered It was made for clvmd.
vg_shared Several hosts share it, under locks.
vg_size The size of all of its extents.
vg_free What of them is free.
vg_sysid The host that it belongs to.
vg_systemid The host that it belongs to.
vg_lock_type How it is locked: dlm here.
vg_lock_args What its lock manager keeps of it; the cluster's name.
vg_extent_size The size of an extent.
vg_extent_count How many extents it has.
vg_free_count How many of them are free.
max_lv How many LVs it may have; 0: any number.
max_pv How many PVs it may have; 0: any number.
pv_count How many PVs it has.
vg_missing_pv_count How many of them are missing.
lv_count How many LVs it has.
snap_count How many of them are snapshots.
vg_seqno The version of its metadata.
vg_tags Its tags.
vg_profile The profile that its metadata names.
vg_mda_count How many metadata areas its PVs have.
vg_mda_used_count How many of them are used.
vg_mda_free What a change of the metadata may have of the smallest area.
vg_mda_size The size of the smallest metadata area.
vg_mda_copies How many areas are to be used.
segtype Of which kind the segment is.
stripes Over how many devices it is striped, or of how many images it is.
data_stripes How many of its devices have data.
reshape_len How much room it has for a reshape.
reshape_len_le The same, in extents.
data_copies How many copies of the data there are.
data_offset Where the data begin on each image.
new_data_offset Where they begin after a reshape.
parity_chunks How many devices may be lost.
stripe_size How much lies on one device before the next one's turn.
region_size How much one bit of a mirror's or RAID's log is for.
chunk_size The unit of a snapshot, cache or thin pool.
thin_count How many thin LVs a pool has.
discards What a thin pool does with discards.
cache_metadata_format The format of a cache's metadata.
cache_mode Whether a cache writes through or back.
zero New blocks of a thin pool are zeroed.
transaction_id The version of a thin pool's metadata; of a thin LV, when it was made.
thin_id The number of a thin LV in its pool.
seg_start Where in the LV the segment begins.
seg_start_pe The same, in extents.
seg_size The segment's size.
seg_size_pe The same, in extents.
seg_tags The segment's tags.
seg_pe_ranges Which extents of which PVs or LVs it is made of.
seg_le_ranges The same, of LVs in LVs' extents.
seg_metadata_le_ranges Which extents its metadata LVs give.
devices On which devices it lies, and from which extent on.
metadata_devices On which devices its metadata lies.
seg_monitor Whether dmeventd watches it.
cache_policy The policy of a cache.
cache_settings Settings of that policy.
vdo_compression A VDO pool compresses.
vdo_deduplication A VDO pool deduplicates.
vdo_use_metadata_hints A VDO pool sets metadata hints.
vdo_minimum_io_size The least request of a VDO pool.
vdo_block_map_cache_size The cache of its block map.
vdo_block_map_era_length How soon a cached page of its block map is written.
vdo_use_sparse_index Its index is a sparse one.
vdo_index_memory_size How much memory its index has.
vdo_slab_size By how much it grows.
vdo_ack_threads Threads that answer requests.
vdo_bio_threads Threads that send requests to the disk.
vdo_bio_rotation After so many requests it is the next thread's turn.
vdo_cpu_threads Threads that hash and compress.
vdo_hash_zone_threads Threads that compare hashes.
vdo_logical_threads Threads for logical addresses.
vdo_physical_threads Threads for physical addresses.
vdo_max_discard The most that one discard is for.
vdo_write_policy When a write is answered.
vdo_header_size What its header takes at the beginning and at the end.
pvseg_start The first extent of a piece of the PV.
pvseg_size How many extents the piece has.
lv_holder Which hosts hold the LV, in which mode, since when.
lv_uri Where it can be used on this host, for qemu and libnbd.
lv_parents All LVs that it is a part of.
"""

DESCRIPTIONS = {name: text for name, _, text in (line.partition(" ") for line in _TEXT.split("\n")) if name}
