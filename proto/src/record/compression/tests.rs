use super::*;

const LIMIT: usize = 1 << 20;
const PACKED: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn unpack(compression: Compression, packed: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
    let mut scratch = Scratch::new();
    let result = scratch.unpack(compression, packed, limit).map(<[u8]>::to_vec);
    // One byte more than the bound is what gzip needs to tell an end from an overrun.
    assert!(scratch.capacity() <= limit + 1, "{compression}: {} bytes held, bound {limit}", scratch.capacity());
    result
}

fn pack(compression: Compression, plain: &[u8]) -> Vec<u8> {
    Packer::new().pack(compression, plain).unwrap().to_vec()
}

/// Bytes that pack somewhat, the same for each call.
fn text(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8 ^ (i / 1_000) as u8).collect()
}

#[test]
fn packed_bytes_unpack_to_themselves_with_buffers_used_again() {
    let (mut packer, mut scratch) = (Packer::new(), Scratch::new());
    for length in [0, 1, 100, 65_536, 300_000, 7, 1 << 20] {
        let plain = text(length);
        for compression in Compression::ALL {
            let packed = packer.pack(compression, &plain).unwrap();
            assert_eq!(scratch.unpack(compression, packed, LIMIT).unwrap(), plain, "{compression} {length}");
        }
    }
}

#[test]
fn memory_is_given_back_on_demand() {
    let mut scratch = Scratch::new();
    let packed = pack(Compression::Lz4, &text(500_000));
    scratch.unpack(Compression::Lz4, &packed, LIMIT).unwrap();
    scratch.shrink_to(1_000);
    assert!(scratch.capacity() <= 1_000);
    assert_eq!(scratch.unpack(Compression::Lz4, &packed, LIMIT).unwrap(), text(500_000));
}

#[test]
fn the_bound_is_exact() {
    for compression in PACKED {
        for length in [1, 1_000, 200_000] {
            let plain = text(length);
            let packed = pack(compression, &plain);
            assert_eq!(unpack(compression, &packed, length).unwrap(), plain, "{compression} {length}");
            let refused = unpack(compression, &packed, length - 1);
            assert_eq!(refused, Err(BatchError::TooLargeUnpacked { limit: length - 1 }), "{compression} {length}");
        }
    }
}

#[test]
fn bombs_are_stopped_at_the_bound() {
    let bomb = vec![0; 64 << 20];
    for compression in PACKED {
        let packed = pack(compression, &bomb);
        assert!(packed.len() < bomb.len() / 20);
        assert_eq!(unpack(compression, &packed, LIMIT), Err(BatchError::TooLargeUnpacked { limit: LIMIT }));
    }
}

#[test]
fn cut_and_damaged_data_is_refused_or_harmless() {
    for compression in PACKED {
        let packed = pack(compression, &text(5_000));
        for cut in 0..packed.len() {
            assert!(unpack(compression, &packed[..cut], LIMIT).is_err(), "{compression} cut at {cut}");
        }
        for i in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[i] ^= 1 << (i % 8);
            // Codecs without a checksum may accept it; the batch's CRC covers them.
            let _ = unpack(compression, &damaged, LIMIT);
        }
    }
}

#[test]
fn names_and_numbers_are_kafkas() {
    let names = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (code, name) in (0_i16..).zip(names) {
        let compression = Compression::try_from(code).unwrap();
        assert_eq!((compression.to_string(), name.parse()), (name.to_owned(), Ok(compression)));
        assert_eq!(i16::from(compression), code);
    }
    assert_eq!(Compression::try_from(5), Err(BatchError::UnknownCompression { code: 5 }));
    assert!("LZ4".parse::<Compression>().is_err());
}

mod gzip {
    use super::*;

    #[test]
    fn members_follow_each_other() {
        let packed = [pack(Compression::Gzip, b"one "), pack(Compression::Gzip, b""), pack(Compression::Gzip, b"two")];
        assert_eq!(unpack(Compression::Gzip, &packed.concat(), LIMIT).unwrap(), b"one two");
    }

    #[test]
    fn headers_with_every_optional_field_are_skipped() {
        let plain = pack(Compression::Gzip, b"content");
        let mut packed = plain[..10].to_vec();
        packed[3] = 0b1_1110;
        packed.extend_from_slice(&[3, 0, 1, 2, 3]);
        packed.extend_from_slice(b"name\0comment\0\x12\x34");
        packed.extend_from_slice(&plain[10..]);
        assert_eq!(unpack(Compression::Gzip, &packed, LIMIT).unwrap(), b"content");
        packed[3] |= 1 << 7;
        assert!(unpack(Compression::Gzip, &packed, LIMIT).is_err());
    }

    #[test]
    fn checksum_and_size_are_verified() {
        let packed = pack(Compression::Gzip, b"content");
        for at in [packed.len() - 8, packed.len() - 1] {
            let mut damaged = packed.clone();
            damaged[at] ^= 1;
            assert!(unpack(Compression::Gzip, &damaged, LIMIT).is_err());
        }
    }
}

mod snappy {
    use super::*;

    fn xerial(chunks: &[&[u8]]) -> Vec<u8> {
        let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for chunk in chunks {
            let packed = pack(Compression::Snappy, chunk);
            framed.extend_from_slice(&(packed.len() as u32).to_be_bytes());
            framed.extend_from_slice(&packed);
        }
        framed
    }

    #[test]
    fn xerial_frames_are_read() {
        assert_eq!(unpack(Compression::Snappy, &xerial(&[]), LIMIT).unwrap(), b"");
        let big = text(32 << 10);
        let framed = xerial(&[b"one ", &big, b"", b"two"]);
        assert_eq!(unpack(Compression::Snappy, &framed, LIMIT).unwrap(), [b"one ", &big[..], b"two"].concat());
    }

    #[test]
    fn xerial_bombs_are_stopped_at_the_bound() {
        let chunk = vec![0; 512 << 10];
        let framed = xerial(&[&chunk, &chunk, &chunk[..1]]);
        assert_eq!(unpack(Compression::Snappy, &framed, LIMIT), Err(BatchError::TooLargeUnpacked { limit: LIMIT }));
    }

    #[test]
    fn claimed_sizes_take_no_memory() {
        // A raw block that claims 1,000,000 bytes and holds none.
        assert!(matches!(
            unpack(Compression::Snappy, &[0xc0, 0x84, 0x3d], LIMIT),
            Err(BatchError::CorruptCompression { .. })
        ));
        let mut scratch = Scratch::new();
        assert!(scratch.unpack(Compression::Snappy, &[0xc0, 0x84, 0x3d], LIMIT).is_err());
        assert_eq!(scratch.capacity(), 0);
        let negative = [&xerial(&[])[..], &[0xff; 4]].concat();
        assert!(unpack(Compression::Snappy, &negative, LIMIT).is_err());
    }
}

mod lz4 {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn frame(info: FrameInfo, plain: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn frames_of_every_kind_are_read() {
        let plain = [text(700_000), vec![7; 300_000]].concat();
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for block_mode in [BlockMode::Independent, BlockMode::Linked] {
                for checksums in [false, true] {
                    let info = FrameInfo::new()
                        .block_size(block_size)
                        .block_mode(block_mode)
                        .block_checksums(checksums)
                        .content_checksum(checksums)
                        .content_size(checksums.then_some(plain.len() as u64));
                    let packed = frame(info, &plain);
                    assert_eq!(unpack(Compression::Lz4, &packed, LIMIT).unwrap(), plain);
                }
            }
        }
    }

    #[test]
    fn stored_blocks_are_read_and_bounded() {
        let mut noise = 1_u64;
        let plain: Vec<u8> = (0..200_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 56) as u8
            })
            .collect();
        let packed = frame(FrameInfo::new().block_size(BlockSize::Max64KB), &plain);
        assert!(packed.len() >= plain.len());
        assert_eq!(unpack(Compression::Lz4, &packed, plain.len()).unwrap(), plain);
        let limit = plain.len() - 1;
        assert_eq!(unpack(Compression::Lz4, &packed, limit), Err(BatchError::TooLargeUnpacked { limit }));
    }

    #[test]
    fn checksums_are_verified() {
        let info = FrameInfo::new().block_checksums(true).content_checksum(true);
        let packed = frame(info, &text(1_000));
        // Every bit of header, data and checksums counts.
        for i in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[i] ^= 1;
            assert!(unpack(Compression::Lz4, &damaged, LIMIT).is_err(), "byte {i}");
        }
    }

    #[test]
    fn a_second_frame_and_an_untrue_content_size_are_refused() {
        let one = frame(FrameInfo::new(), b"one");
        assert!(unpack(Compression::Lz4, &one.repeat(2), LIMIT).is_err());
        let mut untrue = frame(FrameInfo::new().content_size(Some(3)), b"one");
        untrue[6] = 4;
        assert!(unpack(Compression::Lz4, &untrue, LIMIT).is_err());
    }
}

mod zstd {
    use super::*;
    use ::zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

    /// A frame as a streaming encoder writes it: without its size, with the window that was asked for.
    fn streamed(plain: &[u8], window_log: u32) -> Vec<u8> {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::WindowLog(window_log)).unwrap();
        let mut packed = Vec::with_capacity(plain.len() + 1_024);
        let mut output = OutBuffer::around(&mut packed);
        let mut input = InBuffer::around(plain);
        context.compress_stream(&mut output, &mut input).unwrap();
        while context.end_stream(&mut output).unwrap() > 0 {}
        packed
    }

    #[test]
    fn frames_that_do_not_tell_their_size_are_read_with_any_window() {
        for window_log in [10, 20, 27] {
            for length in [0, 10, 70_000, 1 << 20] {
                let plain = vec![5; length];
                let packed = streamed(&plain, window_log);
                assert_eq!(unpack(Compression::Zstd, &packed, LIMIT).unwrap(), plain, "{window_log} {length}");
            }
        }
        let bomb = streamed(&vec![5; (1 << 20) + 1], 27);
        assert_eq!(unpack(Compression::Zstd, &bomb, LIMIT), Err(BatchError::TooLargeUnpacked { limit: LIMIT }));
    }

    #[test]
    fn frames_follow_each_other() {
        let packed = [pack(Compression::Zstd, b"one "), streamed(&text(100_000), 17), pack(Compression::Zstd, b"two")];
        let plain = [b"one ", &text(100_000)[..], b"two"].concat();
        assert_eq!(unpack(Compression::Zstd, &packed.concat(), LIMIT).unwrap(), plain);
    }

    #[test]
    fn a_claimed_size_takes_no_more_memory_than_the_bytes_can_hold() {
        let mut packed = pack(Compression::Zstd, &vec![0; 100_000]);
        // Single segment with a four-byte size: magic, descriptor, size.
        assert_eq!(packed[4] >> 6, 2);
        packed[5..9].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        let mut scratch = Scratch::new();
        assert!(scratch.unpack(Compression::Zstd, &packed, 32 << 20).is_err());
        assert!(scratch.capacity() <= packed.len() << 15, "{}", scratch.capacity());
    }
}
