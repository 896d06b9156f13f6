//! One shard: from segments to exchanges. Pure but for the thread that drives it.
