//! Single commands against one shard.
