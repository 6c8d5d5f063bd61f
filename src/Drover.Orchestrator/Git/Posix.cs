using System.Runtime.InteropServices;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>The few file operations that need more than System.IO: exclusive links, synced writes, deletes that survive odd modes.</summary>
internal static partial class Posix
{
    [LibraryImport("libc", EntryPoint = "link", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int NativeLink(string existing, string created);

    [LibraryImport("libc", EntryPoint = "open", StringMarshalling = StringMarshalling.Utf8, SetLastError = true)]
    private static partial int NativeOpen(string path, int flags);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int NativeSync(int fd);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    private static partial int NativeClose(int fd);

    /// <summary>Gives a complete file a second name, atomically; false when that name exists.</summary>
    public static bool TryLink(string existing, string created)
    {
        if (NativeLink(existing, created) == 0)
            return true;
        const int exists = 17;
        var error = Marshal.GetLastPInvokeError();
        return error == exists ? false : throw new IOException($"link {created}: {Marshal.GetPInvokeErrorMessage(error)}");
    }

    /// <summary>True for a regular file that somebody may execute.</summary>
    public static bool IsExecutable(string path) =>
        File.Exists(path) && (OperatingSystem.IsWindows()
            || (File.GetUnixFileMode(path) & (UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute)) != 0);

    /// <summary>Sets or clears the execute bits, following the read bits as git does.</summary>
    public static void SetExecutable(string path, bool executable)
    {
        if (OperatingSystem.IsWindows())
            return;
        var mode = File.GetUnixFileMode(path);
        const UnixFileMode execute = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        var wanted = executable ? mode | (UnixFileMode)(((int)mode & 0b100_100_100) >> 2) : mode & ~execute;
        if (wanted != mode)
            File.SetUnixFileMode(path, wanted);
    }

    /// <summary>Creates a folder that only the user can enter (0700), parents included.</summary>
    public static void CreatePrivate(string folder)
    {
        if (OperatingSystem.IsWindows())
            Directory.CreateDirectory(folder);
        else
            Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <summary>Replaces a file so that a crash leaves the old or the new content, synced.</summary>
    public static void WriteAtomic(string path, ReadOnlySpan<byte> content)
    {
        var temp = $"{path}.drover-{Environment.ProcessId}-{Guid.NewGuid():N}";
        try
        {
            using (var file = new FileStream(temp, FileMode.CreateNew, FileAccess.Write, FileShare.None, 0))
            {
                if (!OperatingSystem.IsWindows())
                    File.SetUnixFileMode(file.SafeFileHandle, File.Exists(path) ? File.GetUnixFileMode(path) : UnixFileMode.UserRead | UnixFileMode.UserWrite);
                file.Write(content);
                file.Flush(flushToDisk: true);
            }
            File.Move(temp, path, overwrite: true);
        }
        catch
        {
            File.Delete(temp);
            throw;
        }
        SyncFolder(Path.GetDirectoryName(path)!);
    }

    /// <summary>Replaces a file by a copy of another, times included; a crash leaves the old or the new one.</summary>
    public static void CopyAtomic(string source, string path)
    {
        File.Copy(source, path + ".tmp", overwrite: true);
        File.SetLastWriteTimeUtc(path + ".tmp", File.GetLastWriteTimeUtc(source));
        File.Move(path + ".tmp", path, overwrite: true);
    }

    /// <summary>Makes renames and deletions in a folder durable.</summary>
    public static void SyncFolder(string folder)
    {
        if (OperatingSystem.IsWindows())
            return;
        var fd = NativeOpen(folder, 0);
        if (fd < 0)
            return;
        _ = NativeSync(fd);
        _ = NativeClose(fd);
    }

    /// <summary>The path with every symbolic link on the way resolved, as git writes it; parts that do not exist stay.</summary>
    public static string RealPath(string path)
    {
        var result = "/";
        foreach (var part in Path.GetFullPath(path).Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            result = Path.Combine(result, part);
            result = Directory.Exists(result) && new DirectoryInfo(result).ResolveLinkTarget(returnFinalTarget: true) is { } target ? RealPath(target.FullName) : result;
        }
        return result;
    }

    /// <summary>True when something has this name, a dangling link included.</summary>
    public static bool Exists(string path)
    {
        var info = new FileInfo(path);
        return info.Exists || info.LinkTarget is not null || Directory.Exists(path);
    }

    /// <summary>Removes a file, link or folder whatever its modes; links are never followed. Nothing there = nothing to do.</summary>
    public static void Delete(string path)
    {
        var info = new FileInfo(path);
        if (info.LinkTarget is not null || info.Exists)
        {
            File.Delete(path);
            return;
        }
        if (!Directory.Exists(path))
            return;
        try
        {
            Directory.Delete(path, recursive: true);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            OpenFolders(path);
            Directory.Delete(path, recursive: true);
        }
    }

    /// <summary>Takes an exclusive lock file, waiting in turn; dispose to release. The lock dies with the process.</summary>
    /// <exception cref="DroverException">Timeout: somebody else held it for <paramref name="patience"/>.</exception>
    public static async Task<IDisposable> LockAsync(string path, TimeSpan patience, TimeProvider time, CancellationToken cancellationToken)
    {
        CreatePrivate(Path.GetDirectoryName(path)!);
        var start = time.GetTimestamp();
        while (true)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 0);
            }
            catch (IOException) when (time.GetElapsedTime(start) < patience)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(5), time, cancellationToken).ConfigureAwait(false);
            }
            catch (UnauthorizedAccessException e)
            {
                throw new DroverException(ErrorCode.InvalidInput, $"{path} cannot be written; make the folder writable for this user", e);
            }
            catch (IOException e)
            {
                throw new DroverException(ErrorCode.Timeout, $"{path} is held by another process since {patience.TotalSeconds:0} s; look for a second drover", e);
            }
        }
    }

    private static void OpenFolders(string folder)
    {
        if (OperatingSystem.IsWindows())
            return;
        File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        foreach (var child in Directory.GetDirectories(folder))
        {
            if (new DirectoryInfo(child).LinkTarget is null)
                OpenFolders(child);
        }
    }
}
