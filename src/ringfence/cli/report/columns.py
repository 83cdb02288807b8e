"""LVM2's report fields: names, types, headings, least widths, in the order of its `-o all` and `-o help`.

A line is NAME TYPE WIDTH HEADING; types: s string, l list of strings, b yes or no, n number, z size,
p percentage, t time.

Two types are what the values are, not what LVM2 calls them: pe_start is a size, seg_size_pe a number.

Source: LVM2 2.03.16 lib/report/columns.h; the order there is part of the format of `-o all`."""

LV = """
lv_uuid s 38 LV UUID
lv_name s 4 LV
lv_full_name s 4 LV
lv_path s 0 Path
lv_dm_path s 0 DMPath
lv_parent s 0 Parent
lv_layout l 10 Layout
lv_role l 10 Role
lv_initial_image_sync b 10 InitImgSync
lv_image_synced b 10 ImgSynced
lv_merging b 10 Merging
lv_converting b 0 Converting
lv_allocation_policy s 10 AllocPol
lv_allocation_locked b 10 AllocLock
lv_fixed_minor b 10 FixMin
lv_skip_activation b 15 SkipAct
lv_autoactivation b 0 AutoAct
lv_when_full s 15 WhenFull
lv_active s 0 Active
lv_active_locally b 10 ActLocal
lv_active_remotely b 10 ActRemote
lv_active_exclusively b 10 ActExcl
lv_major n 0 Maj
lv_minor n 0 Min
lv_read_ahead z 0 Rahead
lv_size z 0 LSize
lv_metadata_size z 0 MSize
seg_count n 0 #Seg
origin s 0 Origin
origin_uuid s 38 Origin UUID
origin_size z 0 OSize
lv_ancestors l 0 Ancestors
lv_full_ancestors l 0 FAncestors
lv_descendants l 0 Descendants
lv_full_descendants l 0 FDescendants
raid_mismatch_count n 0 Mismatches
raid_sync_action s 0 SyncAction
raid_write_behind n 0 WBehind
raid_min_recovery_rate n 0 MinSync
raid_max_recovery_rate n 0 MaxSync
raidintegritymode s 0 IntegMode
raidintegrityblocksize n 0 IntegBlkSize
integritymismatches n 0 IntegMismatches
move_pv s 0 Move
move_pv_uuid s 38 Move UUID
convert_lv s 0 Convert
convert_lv_uuid s 38 Convert UUID
mirror_log s 0 Log
mirror_log_uuid s 38 Log UUID
data_lv s 0 Data
data_lv_uuid s 38 Data UUID
metadata_lv s 0 Meta
metadata_lv_uuid s 38 Meta UUID
pool_lv s 0 Pool
pool_lv_uuid s 38 Pool UUID
lv_tags l 0 LV Tags
lv_profile s 0 LProfile
lv_lockargs s 0 LLockArgs
lv_time t 26 CTime
lv_time_removed t 26 RTime
lv_host s 10 Host
lv_modules l 0 Modules
lv_historical b 0 Historical
writecache_block_size n 0 WCacheBlkSize
"""

LVINFO = """
lv_kernel_major n 0 KMaj
lv_kernel_minor n 0 KMin
lv_kernel_read_ahead z 0 KRahead
lv_permissions s 8 LPerms
lv_suspended b 10 Suspended
lv_live_table b 20 LiveTable
lv_inactive_table b 20 InactiveTable
lv_device_open b 10 DevOpen
"""

LVSTATUS = """
data_percent p 6 Data%
snap_percent p 6 Snap%
metadata_percent p 6 Meta%
copy_percent p 0 Cpy%Sync
sync_percent p 0 Cpy%Sync
cache_total_blocks n 0 CacheTotalBlocks
cache_used_blocks n 16 CacheUsedBlocks
cache_dirty_blocks n 0 CacheDirtyBlocks
cache_read_hits n 16 CacheReadHits
cache_read_misses n 16 CacheReadMisses
cache_write_hits n 16 CacheWriteHits
cache_write_misses n 0 CacheWriteMisses
kernel_cache_settings l 18 KCacheSettings
kernel_cache_policy s 18 KCachePolicy
kernel_metadata_format n 0 KMFmt
lv_health_status s 15 Health
kernel_discards s 0 KDiscards
lv_check_needed b 15 CheckNeeded
lv_merge_failed b 15 MergeFailed
lv_snapshot_invalid b 15 SnapInvalid
vdo_operating_mode s 0 VDOOperatingMode
vdo_compression_state s 0 VDOCompressionState
vdo_index_state s 0 VDOIndexState
vdo_used_size n 0 VDOUsedSize
vdo_saving_percent n 0 VDOSaving%
writecache_total_blocks n 0 WCacheTotalBlocks
writecache_free_blocks n 0 WCacheFreeBlocks
writecache_writeback_blocks n 0 WCacheWritebackBlocks
writecache_error n 0 WCacheErrors
"""

LVINFOSTATUS = """
lv_attr s 0 Attr
"""

LABEL = """
pv_fmt s 0 Fmt
pv_uuid s 38 PV UUID
dev_size z 0 DevSize
pv_name s 10 PV
pv_major s 0 Maj
pv_minor s 0 Min
pv_mda_free z 9 PMdaFree
pv_mda_size z 9 PMdaSize
pv_ext_vsn n 0 PExtVsn
"""

PV = """
pe_start z 7 1st PE
pv_size z 0 PSize
pv_free z 0 PFree
pv_used z 0 Used
pv_attr s 0 Attr
pv_allocatable b 0 Allocatable
pv_exported b 10 Exported
pv_missing b 10 Missing
pv_pe_count n 3 PE
pv_pe_alloc_count n 0 Alloc
pv_tags l 0 PV Tags
pv_mda_count n 0 #PMda
pv_mda_used_count n 0 #PMdaUse
pv_ba_start z 0 BA Start
pv_ba_size z 0 BA Size
pv_in_use b 0 PInUse
pv_duplicate b 0 Duplicate
pv_device_id s 0 DeviceID
pv_device_id_type s 0 DeviceIDType
"""

VG = """
vg_fmt s 0 Fmt
vg_uuid s 38 VG UUID
vg_name s 0 VG
vg_attr s 5 Attr
vg_permissions s 10 VPerms
vg_extendable b 0 Extendable
vg_exported b 10 Exported
vg_autoactivation b 0 AutoAct
vg_partial b 10 Partial
vg_allocation_policy s 10 AllocPol
vg_clustered b 10 Clustered
vg_shared b 7 Shared
vg_size z 0 VSize
vg_free z 0 VFree
vg_sysid s 0 SYS ID
vg_systemid s 0 System ID
vg_lock_type s 0 LockType
vg_lock_args s 0 VLockArgs
vg_extent_size z 0 Ext
vg_extent_count n 0 #Ext
vg_free_count n 0 Free
max_lv n 0 MaxLV
max_pv n 0 MaxPV
pv_count n 0 #PV
vg_missing_pv_count n 0 #PV Missing
lv_count n 0 #LV
snap_count n 0 #SN
vg_seqno n 0 Seq
vg_tags l 0 VG Tags
vg_profile s 0 VProfile
vg_mda_count n 0 #VMda
vg_mda_used_count n 0 #VMdaUse
vg_mda_free z 9 VMdaFree
vg_mda_size z 9 VMdaSize
vg_mda_copies n 0 #VMdaCps
"""

SEG = """
segtype s 0 Type
stripes n 0 #Str
data_stripes n 0 #DStr
reshape_len z 0 RSize
reshape_len_le n 0 RSize
data_copies n 0 #Cpy
data_offset n 0 DOff
new_data_offset n 0 NOff
parity_chunks n 0 #Par
stripe_size z 0 Stripe
region_size z 0 Region
chunk_size z 0 Chunk
thin_count n 0 #Thins
discards s 0 Discards
cache_metadata_format n 0 CMFmt
cache_mode s 0 CacheMode
zero b 0 Zero
transaction_id n 0 TransId
thin_id n 0 ThId
seg_start z 0 Start
seg_start_pe n 0 Start
seg_size z 0 SSize
seg_size_pe n 0 SSize
seg_tags l 0 Seg Tags
seg_pe_ranges l 0 PE Ranges
seg_le_ranges l 0 LE Ranges
seg_metadata_le_ranges l 0 Metadata LE Ranges
devices l 0 Devices
metadata_devices l 0 Metadata Devs
seg_monitor s 0 Monitor
cache_policy s 0 CachePolicy
cache_settings l 0 CacheSettings
vdo_compression b 0 VDOCompression
vdo_deduplication b 0 VDODeduplication
vdo_use_metadata_hints b 0 VDOMetadataHints
vdo_minimum_io_size n 0 VDOMinimumIOSize
vdo_block_map_cache_size z 0 VDOBlockMapCacheSize
vdo_block_map_era_length n 0 VDOBlockMapEraLength
vdo_use_sparse_index b 0 VDOSparseIndex
vdo_index_memory_size z 0 VDOIndexMemorySize
vdo_slab_size z 0 VDOSlabSize
vdo_ack_threads n 0 VDOAckThreads
vdo_bio_threads n 0 VDOBioThreads
vdo_bio_rotation n 0 VDOBioRotation
vdo_cpu_threads n 0 VDOCPUThreads
vdo_hash_zone_threads n 0 VDOHashZoneThreads
vdo_logical_threads n 0 VDOLogicalThreads
vdo_physical_threads n 0 VDOPhysicalThreads
vdo_max_discard n 0 VDOMaxDiscard
vdo_write_policy s 0 VDOWritePolicy
vdo_header_size z 0 VDOHeaderSize
"""

PVSEG = """
pvseg_start n 0 Start
pvseg_size n 0 SSize
"""
