// Everything a test watches and publishes with.

export * from './http.mjs';
export * from './positions.mjs';
export * from './random.mjs';
export * from './socketio.mjs';
export * from './sse.mjs';
export * from './waiting.mjs';
