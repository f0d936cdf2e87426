//! Licences, source records, content hashes, bills of materials, audit
