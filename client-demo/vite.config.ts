import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// The gateway lets in exactly http://localhost:5173 unless cors.origins says otherwise:
// moving on to a free port would only produce a page that cannot connect.
const server = { host: 'localhost', port: 5173, strictPort: true };

export default defineConfig({ plugins: [react()], server, preview: server });
