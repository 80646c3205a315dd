interface ImportMetaEnv {
  readonly VITE_JOBCAST_URL?: string;
}

interface ImportMeta {
  readonly env: ImportMetaEnv;
}
