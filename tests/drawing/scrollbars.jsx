// In place of react-custom-scrollbars-2, whose default export esbuild and @grafana/ui read differently.
import React, { forwardRef } from 'react';

export default forwardRef(({ children }, ref) => <div ref={ref} style={{ height: '100%', overflow: 'hidden' }}>{children}</div>);
