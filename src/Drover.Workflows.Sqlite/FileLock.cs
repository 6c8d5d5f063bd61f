using System.Runtime.InteropServices;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// An OS file lock beside the database. The descriptor is close-on-exec, so no child inherits it, and the kernel frees the
/// lock however the process ends. Opened by the system call: the runtime's own open would try a lock of its own.
/// </summary>
internal sealed class FileLock : IDisposable
{
    private readonly string _path;
    private int _descriptor;

    private FileLock(int descriptor, string path) => (_descriptor, _path) = (descriptor, path);

    /// <summary>Opens the lock file, created 0600, without taking the lock.</summary>
    public static FileLock Open(string path)
    {
        RefuseWindows();
        int descriptor = LibC.Open(path, LibC.ReadWrite | LibC.CreateFlag | LibC.CloseOnExecFlag, 0b110_000_000);
        if (descriptor < 0)
        {
            throw new DroverException(ErrorCode.Database,
                $"cannot open the lock file {path} ({Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}): check the folder's permissions");
        }
        _ = LibC.FChmod(descriptor, 0b110_000_000);
        return new FileLock(descriptor, path);
    }

    /// <summary>Takes the lock; blocks as long as another process holds it.</summary>
    public void Take()
    {
        RefuseWindows();
        while (LibC.Flock(_descriptor, LibC.LockExclusive) != 0)
        {
            int error = Marshal.GetLastPInvokeError();
            if (error != LibC.Interrupted)
            {
                throw new DroverException(ErrorCode.Database,
                    $"cannot lock {_path} ({Marshal.GetPInvokeErrorMessage(error)}): is the folder on a local disk?");
            }
        }
    }

    /// <summary>Takes the lock if it is free.</summary>
    public bool TryTake()
    {
        RefuseWindows();
        return LibC.Flock(_descriptor, LibC.LockExclusive | LibC.LockNonBlocking) == 0;
    }

    /// <summary>Gives the lock back.</summary>
    public void Release()
    {
        RefuseWindows();
        _ = LibC.Flock(_descriptor, LibC.Unlock);
    }

    private static void RefuseWindows()
    {
        if (OperatingSystem.IsWindows())
            throw new PlatformNotSupportedException("a SQLite database shared by processes needs Linux or macOS (on Windows use WSL)");
    }

    public void Dispose()
    {
        RefuseWindows();
        int descriptor = Interlocked.Exchange(ref _descriptor, -1);
        if (descriptor >= 0)
            _ = LibC.Close(descriptor);
    }
}
