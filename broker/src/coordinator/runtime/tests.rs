mod core;
mod task;
mod toy;
