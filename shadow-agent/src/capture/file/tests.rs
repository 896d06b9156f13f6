mod captures;
mod recordings;
