//! Checksums of pages: CRC-32 in each page's header, as the format has it ([Parquet, "Checksumming"]). Readers that check them
//! find damage in what they read, whether it would still decode or not; parquet-rs does, but does not write them.
//!
//! [Parquet, "Checksumming"]: https://parquet.apache.org/docs/file-format/data-pages/checksumming/

use std::{io::Write, ops::Range};

use bytes::Bytes;
use parquet::{
    column::writer::ColumnCloseResult,
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        page_index::column_index::ColumnIndexMetaData,
        writer::SerializedFileWriter,
    },
};
use prost::encoding::{decode_varint, encode_varint};

/// Adds the only row group of a file, which is in memory, to another file, with checksums.
pub(super) fn add_row_group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    bytes: &Bytes,
    metadata: &ParquetMetaData,
) -> Result<()> {
    let mut row_group = file.next_row_group()?;
    let group = metadata.row_group(0);
    let of_group = |what: &str| ParquetError::General(format!("a row group was written without {what}"));
    let places = metadata.offset_index().and_then(|groups| groups.first());
    let places = places.ok_or_else(|| of_group("the places of its pages"))?;
    let ranges = metadata.column_index().and_then(|groups| groups.first());
    for (column, chunk) in group.columns().iter().enumerate() {
        let mut places = places[column].clone();
        let mut pages = Vec::with_capacity(places.page_locations.len() + 1);
        if let Some(start) = chunk.dictionary_page_offset() {
            pages.push(start as usize..chunk.data_page_offset() as usize);
        }
        pages.extend(places.page_locations.iter().map(|page| {
            let start = page.offset as usize;
            start..start + page.compressed_page_size as usize
        }));
        let (mut chunk_bytes, mut written) =
            (Vec::with_capacity(bytes.len()), Vec::with_capacity(pages.len()));
        for page in pages {
            let start = chunk_bytes.len();
            add_page(&mut chunk_bytes, &bytes[page])?;
            written.push(start..chunk_bytes.len());
        }
        let chunk = moved(chunk, &written, chunk_bytes.len())?;
        let data_pages = &written[usize::from(chunk.dictionary_page_offset().is_some())..];
        for (place, page) in places.page_locations.iter_mut().zip(data_pages) {
            place.offset = page.start as i64;
            place.compressed_page_size = page.len() as i32;
        }
        let column_index = ranges.map(|ranges| ranges[column].clone());
        let close = ColumnCloseResult {
            bytes_written: chunk_bytes.len() as u64,
            rows_written: group.num_rows() as u64,
            metadata: chunk,
            bloom_filter: None,
            column_index: column_index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
            offset_index: Some(places),
        };
        row_group.append_column(&Bytes::from(chunk_bytes), close)?;
    }
    row_group.close()?;
    Ok(())
}

/// What is said of a column chunk whose pages, the dictionary first, are now here.
fn moved(chunk: &ColumnChunkMetaData, pages: &[Range<usize>], bytes: usize) -> Result<ColumnChunkMetaData> {
    let longer = bytes as i64 - chunk.compressed_size();
    let dictionary = chunk.dictionary_page_offset().map(|_| 0);
    let first = pages.get(usize::from(dictionary.is_some())).map_or(bytes, |page| page.start);
    chunk
        .clone()
        .into_builder()
        .set_total_compressed_size(bytes as i64)
        .set_total_uncompressed_size(chunk.uncompressed_size() + longer)
        .set_dictionary_page_offset(dictionary)
        .set_data_page_offset(first as i64)
        .build()
}

/// Where a page's header says of what kind it is, in Thrift's compact protocol: the high bits of a byte are the distance from the
/// field before.
const FIELD: u8 = 0x10;
/// An integer of 32 bits that is the field after the one before.
const NEXT_IS_I32: u8 = FIELD | 5;

/// Adds a page without a checksum as one with it. Its header is a `PageHeader`: type, size uncompressed, size compressed, then the
/// checksum, then what only pages of its type have.
fn add_page(to: &mut Vec<u8>, page: &[u8]) -> Result<()> {
    let unexpected = || ParquetError::General("a page's header is not as parquet-rs writes it".to_owned());
    let mut rest = page;
    let mut size = 0;
    for _ in 0..3 {
        rest = rest.strip_prefix(&[NEXT_IS_I32]).ok_or_else(unexpected)?;
        size = unzigzag(decode_varint(&mut rest).map_err(|_| unexpected())?);
    }
    let header = page.len() - rest.len();
    let of_type = *rest.first().filter(|next| **next >= 2 * FIELD).ok_or_else(unexpected)?;
    let data =
        usize::try_from(size).ok().and_then(|size| page.len().checked_sub(size)).ok_or_else(unexpected)?;
    let checksum = crc32fast::hash(&page[data..]);
    to.extend_from_slice(&page[..header]);
    to.push(NEXT_IS_I32);
    encode_varint(zigzag(checksum as i32), to);
    to.push(of_type - FIELD);
    to.extend_from_slice(&page[header + 1..]);
    Ok(())
}

fn zigzag(number: i32) -> u64 {
    u64::from(((number << 1) ^ (number >> 31)) as u32)
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        basic::{Compression, Encoding},
        file::properties::WriterProperties,
        schema::types::ColumnPath,
    };
    use proptest::prelude::*;

    use super::*;

    fn rows() -> RecordBatch {
        let times = Int64Array::from_iter_values((0..1000).map(|row: i64| row * 7919 % 5000));
        let names: StringArray =
            (0..1000).map(|row| (row % 7 > 0).then(|| format!("name {}", row % 9))).collect();
        let ids: StringArray = (0..1000).map(|row| Some(format!("id {row}"))).collect();
        let columns: [(&str, ArrayRef); 3] =
            [("time", Arc::new(times)), ("name", Arc::new(names)), ("id", Arc::new(ids))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn file() -> Bytes {
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(100)
            .set_write_batch_size(50)
            .set_column_dictionary_enabled(ColumnPath::from("time"), false)
            .set_column_encoding(ColumnPath::from("time"), Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(ColumnPath::from("id"), false)
            .set_column_compression(ColumnPath::from("name"), Compression::ZSTD(Default::default()))
            .build();
        let properties = Arc::new(properties);
        let mut group =
            ArrowWriter::try_new(Vec::new(), rows().schema(), Some((*properties).clone())).unwrap();
        group.write(&rows()).unwrap();
        let metadata = group.finish().unwrap();
        let bytes = Bytes::from(std::mem::take(group.inner_mut()));
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        add_row_group(&mut file, &bytes, &metadata).unwrap();
        add_row_group(&mut file, &bytes, &metadata).unwrap();
        file.into_inner().unwrap().into()
    }

    fn read(file: Bytes) -> Result<Vec<RecordBatch>, Box<dyn std::error::Error>> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(1000).build()?;
        Ok(reader.collect::<Result<_, _>>()?)
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        assert_eq!(read(file()).unwrap(), [rows(), rows()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bit_of_a_page_changes_unnoticed(place in any::<prop::sample::Index>(), bit in 0..8u8) {
            let file = file();
            let metadata = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
            let ends = metadata.row_groups().iter().flat_map(|group| group.columns()).map(|column| {
                let (start, length) = column.byte_range();
                start + length
            });
            let end = ends.max().unwrap() as usize;
            let mut damaged = file.to_vec();
            let place = 4 + place.index(end - 4);
            damaged[place] ^= 1 << bit;
            if let Ok(found) = read(damaged.into()) {
                prop_assert_eq!(found, [rows(), rows()], "bit {} of byte {}", bit, place);
            }
        }
    }
}
