import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import com.google.gson.Gson;

/** What the Java clients have in common: exchanges come as lines of JSON, results go as lines of JSON. */
final class Exchange {
    String id, method, url;
    List<String[]> headers;
    int body = -1;
    boolean chunked, expect, waits;
    double pause, read, again;

    static final Gson GSON = new Gson();

    interface Act {
        Map<String, Object> once(Exchange e) throws Exception;
    }

    /** Makes each exchange: those that wait begin at once, of the others two at a time. */
    static void all(Act act) throws Exception {
        ExecutorService waiting = Executors.newCachedThreadPool();
        ExecutorService busy = Executors.newFixedThreadPool(2);
        try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line; (line = in.readLine()) != null;) {
                Exchange e = GSON.fromJson(line, Exchange.class);
                (e.waits ? waiting : busy).submit(() -> finish(e, act));
            }
        }
        waiting.shutdown();
        busy.shutdown();
    }

    private static void finish(Exchange e, Act act) {
        Map<String, Object> result = new LinkedHashMap<>();
        try {
            result.putAll(act.once(e));
        } catch (Throwable problem) {
            result.put("error", problem.toString());
        }
        result.put("id", e.id);
        synchronized (System.out) {
            System.out.println(GSON.toJson(result));
            System.out.flush();
        }
    }

    static void sleep(double seconds) throws InterruptedException {
        Thread.sleep((long) (seconds * 1000));
    }

    static byte[] pattern(int size) {
        byte[] all = new byte[size];
        for (int i = 0; i < size; i++) {
            all[i] = (byte) (i % 251);
        }
        return all;
    }

    /** Reads an answer's body, and stops reading for a while after its first bytes if the exchange says so. */
    void read(InputStream from, Map<String, Object> result) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] piece = new byte[16384];
        StringBuilder text = new StringBuilder();
        int length = 0;
        for (int n; from != null && (n = from.read(piece)) >= 0;) {
            if (length == 0 && read > 0) {
                sleep(read);
            }
            length += n;
            digest.update(piece, 0, n);
            text.append(new String(piece, 0, Math.min(n, 16384 - text.length()), "ISO-8859-1"));
        }
        result.put("length", length);
        result.put("sha256", HexFormat.of().formatHex(digest.digest()));
        result.put("text", text.toString());
    }
}
