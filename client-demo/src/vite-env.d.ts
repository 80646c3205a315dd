interface ImportMetaEnv {
  readonly VITE_JOBCAST_URL?: string;
  readonly VITE_JOBCAST_TOKEN_URL?: string;
}

interface ImportMeta {
  readonly env: ImportMetaEnv;
}
