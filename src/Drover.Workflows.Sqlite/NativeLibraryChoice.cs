using System.Runtime.InteropServices;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// Chooses the native SQLite, in this order: the file named by <c>DROVER_SQLITE</c>, one packed with the tool
/// (<c>libdrover_sqlite3.so</c> beside the program), the system's, the bundled one (3.35.5).
/// </summary>
public static class NativeLibraryChoice
{
    private static readonly Lock Gate = new();
    private static bool s_initialized;

    /// <summary>Where the library in use came from; for <c>drover doctor</c>.</summary>
    public static string Source { get; private set; } = "not loaded";

    /// <summary>The loaded library.</summary>
    internal static IntPtr Handle { get; private set; }

    /// <summary>The version in use, such as <c>3.40.1</c>.</summary>
    public static string Version
    {
        get
        {
            Initialize();
            return SQLitePCL.raw.sqlite3_libversion().utf8_to_string();
        }
    }

    /// <summary>True when the version in use has the WAL-reset race (below 3.51.3); the commit lock covers it.</summary>
    public static bool HasWalResetRace
    {
        get
        {
            Initialize();
            return SQLitePCL.raw.sqlite3_libversion_number() < 3_051_003;
        }
    }

    /// <summary>Loads the library once; throws a database error when the one named by DROVER_SQLITE cannot be loaded.</summary>
    internal static void Initialize()
    {
        lock (Gate)
        {
            if (s_initialized)
                return;
            NativeLibrary.SetDllImportResolver(typeof(SQLitePCL.SQLite3Provider_e_sqlite3).Assembly, static (name, assembly, search) =>
                name == "e_sqlite3" ? Handle = Load(assembly, search) : IntPtr.Zero);
            SQLitePCL.raw.SetProvider(new SQLitePCL.SQLite3Provider_e_sqlite3());
            s_initialized = true;
        }
    }

    private static IntPtr Load(System.Reflection.Assembly assembly, DllImportSearchPath? search)
    {
        string? named = Environment.GetEnvironmentVariable("DROVER_SQLITE");
        if (!string.IsNullOrEmpty(named))
        {
            if (!NativeLibrary.TryLoad(named, out IntPtr chosen))
                throw new DroverException(ErrorCode.Database, $"DROVER_SQLITE names {named}, which cannot be loaded: unset it or name a SQLite library");
            Source = $"DROVER_SQLITE ({named})";
            return chosen;
        }

        foreach ((string file, string source) in Candidates())
        {
            if (NativeLibrary.TryLoad(file, out IntPtr found))
            {
                Source = source;
                return found;
            }
        }
        Source = "bundled";
        return NativeLibrary.Load("e_sqlite3", assembly, search);
    }

    private static IEnumerable<(string File, string Source)> Candidates()
    {
        string packed = OperatingSystem.IsMacOS() ? "libdrover_sqlite3.dylib" : "libdrover_sqlite3.so";
        yield return (Path.Combine(AppContext.BaseDirectory, packed), "packed");
        yield return (OperatingSystem.IsMacOS() ? "libsqlite3.dylib" : "libsqlite3.so.0", "system");
    }
}
