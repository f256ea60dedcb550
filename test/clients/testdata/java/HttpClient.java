import java.io.InputStream;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

import org.apache.hc.client5.http.config.RequestConfig;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.apache.hc.client5.http.ssl.DefaultClientTlsStrategy;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.Header;
import org.apache.hc.core5.http.HttpHost;
import org.apache.hc.core5.http.io.entity.AbstractHttpEntity;
import org.apache.hc.core5.http.io.support.ClassicRequestBuilder;
import org.apache.hc.core5.util.Timeout;

/** Apache HttpClient 5 as a client, with its defaults but for the certificate, the timeout and repetitions. */
final class HttpClient {
    public static void main(String[] args) throws Exception {
        CloseableHttpClient shared = client(args[0]);
        Exchange.all(e -> {
            if (e.again == 0) {
                return once(shared, e);
            }
            try (CloseableHttpClient own = client(args[0])) {
                once(own, e);
                Exchange.sleep(e.again);
                return once(own, e);
            }
        });
    }

    static CloseableHttpClient client(String ca) throws Exception {
        var connections = PoolingHttpClientConnectionManagerBuilder.create()
            .setTlsSocketStrategy(new DefaultClientTlsStrategy(Trust.in(ca))).setMaxConnPerRoute(200).setMaxConnTotal(1000).build();
        return HttpClients.custom().setConnectionManager(connections).disableAutomaticRetries().disableContentCompression().disableRedirectHandling()
            .setDefaultRequestConfig(RequestConfig.custom().setResponseTimeout(Timeout.ofSeconds(120)).build()).build();
    }

    static Map<String, Object> once(CloseableHttpClient client, Exchange e) throws Exception {
        var request = ClassicRequestBuilder.create(e.method).setUri(e.url);
        if (e.headers != null) {
            e.headers.forEach(h -> request.addHeader(h[0], h[1]));
        }
        if (e.body >= 0) {
            request.setEntity(new Body(e));
        }
        var built = request.build();
        var context = org.apache.hc.client5.http.protocol.HttpClientContext.create();
        context.setRequestConfig(RequestConfig.custom().setExpectContinueEnabled(e.expect).setResponseTimeout(Timeout.ofSeconds(120)).build());
        Map<String, Object> result = new LinkedHashMap<>();
        HttpHost host = HttpHost.create(java.net.URI.create(e.url));
        return client.execute(host, built, context, answer -> {
            Map<String, String> headers = new LinkedHashMap<>();
            for (Header h : answer.getHeaders()) {
                headers.merge(h.getName().toLowerCase(Locale.ROOT), h.getValue(), (a, b) -> a + ", " + b);
            }
            result.put("status", answer.getCode());
            result.put("version", answer.getVersion().toString());
            result.put("headers", headers);
            try {
                e.read(answer.getEntity() == null ? null : answer.getEntity().getContent(), result);
            } catch (java.io.IOException problem) {
                throw problem;
            } catch (Exception problem) {
                throw new java.io.IOException(problem);
            }
            return result;
        });
    }

    /** A body of two halves with a pause between them. */
    static final class Body extends AbstractHttpEntity {
        private final Exchange e;

        Body(Exchange e) {
            super(ContentType.APPLICATION_OCTET_STREAM, null, e.chunked);
            this.e = e;
        }

        @Override
        public void writeTo(OutputStream to) throws java.io.IOException {
            byte[] whole = Exchange.pattern(e.body);
            int half = whole.length / 2;
            to.write(whole, 0, half);
            if (e.pause > 0) {
                to.flush();
                try {
                    Exchange.sleep(e.pause);
                } catch (InterruptedException problem) {
                    throw new java.io.InterruptedIOException();
                }
            }
            to.write(whole, half, whole.length - half);
        }

        @Override
        public long getContentLength() {
            return e.chunked ? -1 : e.body;
        }

        @Override
        public boolean isRepeatable() {
            return true;
        }

        @Override
        public boolean isStreaming() {
            return false;
        }

        @Override
        public InputStream getContent() {
            throw new UnsupportedOperationException();
        }

        @Override
        public void close() {
        }
    }
}
