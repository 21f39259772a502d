import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** Sends a file and saves what comes back, with a non-blocking connect: NioClient PORT FILE SAVED. */
class NioClient {
    public static void main(String[] arguments) throws IOException {
        FileChannel file = FileChannel.open(Path.of(arguments[1]));
        FileChannel saved = FileChannel.open(
                Path.of(arguments[2]), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        ByteBuffer buffer = ByteBuffer.allocateDirect(65536);
        long sent = 0;

        Selector selector = Selector.open();
        SocketChannel channel = SocketChannel.open();
        channel.configureBlocking(false);
        channel.connect(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
        SelectionKey key = channel.register(selector, SelectionKey.OP_CONNECT);
        boolean ended = false;
        while (!ended || sent < file.size()) {
            selector.select();
            selector.selectedKeys().clear();
            if (key.isConnectable() && channel.finishConnect()) {
                key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
            } else if (key.isWritable()) {
                sent += file.transferTo(sent, 1 << 20, channel); // sendfile()
                if (sent == file.size()) {
                    channel.shutdownOutput();
                    key.interestOpsAnd(~SelectionKey.OP_WRITE);
                }
            }
            if (key.isReadable()) {
                if (channel.read(buffer) < 0) {
                    ended = true;
                    key.interestOpsAnd(~SelectionKey.OP_READ);
                }
                saved.write(buffer.flip());
                buffer.clear();
            }
        }
        channel.close();
    }
}
