using System.Runtime.InteropServices;

namespace Drover.Workflows.Sqlite;

/// <summary>The few calls that .NET does not offer: advisory locks that block, and that die with the process. Not on Windows.</summary>
internal static partial class LibC
{
    internal const int LockExclusive = 2;
    internal const int LockNonBlocking = 4;
    internal const int Unlock = 8;
    internal const int Interrupted = 4;
    internal const int ReadWrite = 2;

    internal static int CreateFlag => OperatingSystem.IsMacOS() ? 0x200 : 0x40;

    internal static int CloseOnExecFlag => OperatingSystem.IsMacOS() ? 0x1000000 : 0x80000;

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    internal static partial int Flock(int fd, int operation);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "fchmod", SetLastError = true)]
    internal static partial int FChmod(int fd, int mode);

    /// <summary>Sends one byte to an abstract address of Linux without ever waiting; true when it was taken or the listener's queue is full.</summary>
    internal static bool TrySendDatagram(System.Net.Sockets.Socket socket, ReadOnlySpan<byte> name)
    {
        const int dontWait = 0x40, noSignal = 0x4000, again = 11, noBuffers = 105;
        Span<byte> address = stackalloc byte[2 + name.Length];
        address[0] = 1; // AF_UNIX, native order on every platform that .NET supports
        address[1] = 0;
        name.CopyTo(address[2..]);
        byte signal = 1;
        nint sent = SendTo(socket.SafeHandle, in signal, 1, dontWait | noSignal, address, address.Length);
        return sent == 1 || Marshal.GetLastPInvokeError() is again or noBuffers;
    }

    [LibraryImport("libc", EntryPoint = "sendto", SetLastError = true)]
    private static partial nint SendTo(SafeHandle socket, in byte bytes, nint count, int flags, ReadOnlySpan<byte> address, int addressLength);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);
}
