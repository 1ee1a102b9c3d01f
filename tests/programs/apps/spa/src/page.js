export const text = (path) => `loaded for ${path}`;
